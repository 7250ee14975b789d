"""The documentation's pages and the site that is built of them; a package, so that no other one called docs is taken."""
