"""Is the canary worse? Tests that hold however often one looks, for users who differ and traffic that changes.

`clustered` estimates a difference of two arms stratified by the canary's share, with the variance of its users;
`sequential` turns estimates into evidence that may be looked at all the time; `clicks` joins what was shown with what
was clicked; `latency` compares the arms' slowest requests. `make bench-canary` measures the error rates.
"""
