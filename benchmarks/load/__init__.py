"""The harness behind `./dev bench`: what is measured, beside whom, how, and how it is told."""
