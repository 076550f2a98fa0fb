"""Tests of the console command and of the wheel."""
