"""From torch to the bundle: trace, declare, quantize, check, verify."""
