"""A browser as a tier: the page, the client library in JavaScript, and what writes them out."""
