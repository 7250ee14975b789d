"""The documentation's pages and the site that is built of them; a package, lest another docs is taken."""
