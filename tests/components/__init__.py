"""Components for the tests, built from Python by componentize-py, once each: ``.cache/components`` keeps them."""
