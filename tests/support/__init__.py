"""Support for tests of several folders: small bundles, networks, pictures, servers."""
