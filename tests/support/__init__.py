"""What tests of several folders share: small bundles, networks, pictures, servers."""
