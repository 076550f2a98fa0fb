"""Tests of the documentation: every command, query and example of a page is run or checked."""
