"""The laboratory: instruments that study the method. It may import the library; the library never imports it."""
