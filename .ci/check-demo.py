"""Checks the document of `patronus demo --json`: complete, balanced, and nothing in it zero that was measured."""

import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read()
report = json.loads(text)

wrong = []


def positive(name, value):
    if not isinstance(value, (int, float)) or value <= 0:
        wrong.append(f"{name} is {value!r}, not a positive number")


if report["sites"] != 2:
    wrong.append(f"sites is {report['sites']!r}")
for name in ("tcp_gbps", "tcp_reverse_gbps", "udp_gbps", "udp_small_kpps", "cpu_s_per_gbit"):
    positive(name, report[name])
for name in ("rtt_idle_us", "rtt_loaded_us"):
    for quantile in ("p50", "p99"):
        positive(f"{name}.{quantile}", report[name][quantile])
    if report[name]["p50"] > report[name]["p99"]:
        wrong.append(f"{name}: p50 above p99")
packets = report["packets"]
for name in ("rx", "tx", "consumed"):
    positive(f"packets.{name}", packets[name])
ended = packets["tx"] + packets["consumed"] + sum(packets["drops"].values())
if packets["rx"] != ended:
    wrong.append(f"packets: rx {packets['rx']} is not tx + consumed + drops {ended}")
if report["balanced"] is not True:
    wrong.append("not balanced")
if not report["offloads"]:
    wrong.append("no offloads named")
positive("workers", report["workers"])

if wrong:
    sys.exit("demo: " + "; ".join(wrong))
print("demo: the document is complete and balanced:", json.dumps(report))
