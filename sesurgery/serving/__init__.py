"""What is done with an engine once it is built, without torch: run it on images, put it on a server."""
