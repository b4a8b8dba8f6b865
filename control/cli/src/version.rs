//! `patronus version`: this program, the gateway that runs, the kernel.

use clap::Args;
use serde::Serialize;

use crate::gateway::Gateway;
use crate::print;

/// The command line of `version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The end of `version --help`.
pub const HELP: &str = "\
Example:
  patronus version --json

Exit codes: 0 told, 2 usage, 3 the running gateway is of another version. That no
gateway runs is no fault.";

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub struct Version {
    /// This program's.
    program: &'static str,
    /// The running gateway's; `null` where none answers.
    gateway: Option<String>,
    /// The version of the local API.
    api: &'static str,
    /// The kernel's.
    kernel: Option<String>,
    /// What it was built for.
    architecture: &'static str,
}

/// Versions of this program and of `gateway`.
pub fn version_of(gateway: Option<String>) -> Version {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    Version {
        program: env!("CARGO_PKG_VERSION"),
        gateway,
        api: "v1",
        kernel: kernel.ok().map(|it| it.trim().to_owned()),
        architecture: std::env::consts::ARCH,
    }
}

/// Tells the versions.
pub fn version(args: &VersionArgs) -> anyhow::Result<u8> {
    let status = args
        .gateway
        .connect()
        .and_then(|client| Ok(client.status()?));
    let told = version_of(status.ok().map(|it| it.version));
    match args.json {
        true => print::json(&told)?,
        false => {
            let gateway = told.gateway.as_deref().unwrap_or("none answers");
            let kernel = told.kernel.as_deref().unwrap_or("unknown");
            print::text_out(&format!(
                "patronus {} ({})\ngateway  {gateway}\napi      {}\nkernel   {kernel}\n",
                told.program, told.architecture, told.api
            ));
        }
    }
    let is_other = told.gateway.is_some_and(|it| it != told.program);
    Ok(if is_other { 3 } else { 0 })
}
