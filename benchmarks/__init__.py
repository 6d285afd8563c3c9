"""The benchmarks run as the server does: without anything being noted down or sent home by a library."""

import telemetry

telemetry.switch_off()
