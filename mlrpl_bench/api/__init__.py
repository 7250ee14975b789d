"""This package runs, compares and reads back experiments, for the command line and for notebooks.

Nothing here prints or ends the process. Data comes back as pandas frames, bad input as `UserError`, and progress goes
to a `Watcher`. A notebook calls `functions`, which the package's face hands on; a command resolves a `Request` and
calls `execute` or `reading`.
"""
