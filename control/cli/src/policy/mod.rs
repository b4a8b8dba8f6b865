//! `patronus policy …` and `patronus explain`: from manifests in files to answers, or by asking the running gateway.
//!
//! Reading files is [`input`]'s business, asking is [`live`]'s, semantics are `patronus-policy`'s on both ways.

mod check;
mod diff;
mod explain;
mod flows;
mod input;
mod lint;
mod list;
mod live;
mod test;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use patronus_policy::document::{End, Transport};

use crate::gateway::Gateway;
use crate::print;
pub use explain::explain;

/// The verbs about policy.
#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Say what is wrong with manifests: file, line, field and remedy
    #[command(after_help = CHECK_HELP)]
    Check(ManifestArgs),
    /// Run test documents: which connections must pass and which must not
    #[command(after_help = TEST_HELP)]
    Test(TestArgs),
    /// List the policies in force, whom they select and what they allow
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// Point out what is probably not meant
    #[command(after_help = LINT_HELP)]
    Lint(LintArgs),
    /// Say which connections would get another verdict
    #[command(after_help = DIFF_HELP)]
    Diff(DiffArgs),
}

/// Manifests, and how to answer.
#[derive(Debug, Args)]
pub struct ManifestArgs {
    /// Files of manifests, or directories of *.yaml, *.yml and *.json; - is standard input
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// The command line of `policy list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Files of manifests, or directories of *.yaml, *.yml and *.json; without any, what is in force in the running
    /// gateway
    #[arg(value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    gateway: Gateway,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// The command line of `policy test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Test documents; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// The command line of `policy lint`.
#[derive(Debug, Args)]
pub struct LintArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    /// Exit with 1 if there is a finding
    #[arg(long)]
    strict: bool,
}

/// The command line of `policy diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The manifests to be, a file or a directory; before them those to compare with, else the live flows of the
    /// running gateway are judged
    #[arg(required = true, num_args = 1..=2, value_name = "[OLD] NEW")]
    paths: Vec<PathBuf>,
    /// Judge the flows of this file instead of everybody with everybody: objects with src, dst, protocol and port,
    /// one per line or as one array
    #[arg(long, value_name = "FILE")]
    flows: Option<PathBuf>,
    #[command(flatten)]
    gateway: Gateway,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// The command line of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Who opens the connection: an address, namespace/pod, namespace/pod@4, namespace/pod@6 or node:NAME
    src: End,
    /// To whom, written alike
    dst: End,
    /// tcp/PORT, udp/PORT, sctp/PORT, icmp, or another protocol's number
    #[arg(value_name = "PROTO/PORT")]
    transport: Transport,
    /// Judge by these manifests: files, or directories of *.yaml, *.yml and *.json; else the running gateway is asked
    #[arg(long, num_args = 1.., value_name = "FILE|DIR")]
    config: Vec<PathBuf>,
    #[command(flatten)]
    gateway: Gateway,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// Runs a verb and says with which code to exit.
pub fn run(verb: PolicyVerb) -> anyhow::Result<u8> {
    match verb {
        PolicyVerb::Check(args) => check::check(&args),
        PolicyVerb::Test(args) => test::test(&args),
        PolicyVerb::List(args) => list::list(&args),
        PolicyVerb::Lint(args) => lint::lint(&args),
        PolicyVerb::Diff(args) => diff::diff(&args),
    }
}

/// Done.
const DONE: u8 = 0;
/// What was asked to hold does not.
const FAILED: u8 = 1;
/// `explain` found that policy denies.
const DENIED: u8 = 4;

const CHECK_HELP: &str = "\
Example:
  patronus policy check /etc/patronus/policies.d

Every fault comes with file, line, field and what to write instead. Exits with 1
if an object is refused; warnings refuse nothing.";

const TEST_HELP: &str = "\
Example:
  patronus policy test tests.json

A document holds small clusters, policies and the connections that they must
allow (.) or deny (X). Each verdict is checked on tables that took every change
in turn and on tables built afresh. Exits with 1 if a must fails; should and
optional verdicts are reported.";

const LIST_HELP: &str = "\
Examples:
  patronus policy list policies.d
  patronus policy list

The second form asks the running gateway, and tells what each rule refused.
Tiers are asked from top to bottom. A NetworkPolicy has no order: all that select
a pod add up.";

const LINT_HELP: &str = "\
Example:
  patronus policy lint --strict policies.d

Finds policies that select nobody or change no verdict, rules that never decide
or allow everything, ports that no pod names, equal priorities, namespaces
without a manifest, and addresses that several pods claim.";

const DIFF_HELP: &str = "\
Examples:
  patronus policy diff policies.d candidate.d
  patronus policy diff policies.d candidate.d --flows flows.json
  patronus policy diff candidate.d

The last form asks the running gateway which of its live flows would change.

A flow file holds lines like
  {\"src\": \"shop/till-1\", \"dst\": \"10.1.0.9\", \"protocol\": \"tcp\", \"port\": 8443}
Without one everybody is judged with everybody on every port that a policy tells
apart; pods that no policy tells apart are judged once.";

/// The end of `explain --help`.
pub const EXPLAIN_HELP: &str = "\
Examples:
  patronus explain guest/tablet office/printer tcp/631 --config policies.d
  patronus explain guest/tablet office/printer tcp/631

The second form asks the running gateway.
Names the deciding rule with file and line, or the policies that isolate and the
rule that came nearest. Exits with 0 if the connection is allowed, with 4 if it
is denied, with 5 if no gateway answers, with 2 if the command line is wrong,
and else with 1.";
