"""What a program calls: each function joins the packages below for one job.

The command line calls nothing else.
"""
