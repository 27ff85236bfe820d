"""The plots of the pages and of the command line, one file for each thing that is measured."""
