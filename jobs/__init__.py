"""Entry points: parse, build, call, exit code.

Thin; what they call lives in pipeline/ and actors/.
"""
