"""This folder makes the static pages of ``site`` from folders of records, packs and kept tables."""
