//! From a parsed command line to the crate that does the work, and from its outcome to an exit code.
//!
//! 0 done, 1 failed, 2 the command line or this machine cannot do it, 3 not well, or done but not all is as it should
//! be, 4 denied by policy, 5 no gateway answers.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use patronus_api::ClientError;
use patronus_gateway::RunOptions;
use patronus_lab::{CompareOptions, LabOptions};
use patronus_tui::ConsoleError;
use tracing_subscriber::EnvFilter;

use crate::{
    BenchVerb, CompareArgs, ImportVerb, LabArgs, RunArgs, Verb, bench, bugreport, capture, config,
    console, console_bench, demo, doctor, flows, history, keys, lab_bench, lab_report, monitor,
    paths, peers, policy, prefilter, replay, shell, status, trace, version, workers,
};

/// Runs a verb.
pub fn dispatch(verb: Verb) -> ExitCode {
    let done = |()| 0;
    let outcome = match verb {
        Verb::Run(args) => run(args).map(done),
        Verb::Config(verb) => config::run(&verb),
        Verb::Policy(verb) => policy::run(verb),
        Verb::Explain(args) => policy::explain(&args),
        Verb::Console(args) => console::console(&args).map(done),
        Verb::Status(args) => status::status(&args),
        Verb::Flows(args) => flows::list(&args),
        Verb::Peers(args) => peers::list(&args),
        Verb::Workers(args) => workers::list(&args),
        Verb::Metrics(args) => status::metrics(&args),
        Verb::History(args) => history::history(&args),
        Verb::Completions(args) => shell::completions(&args),
        Verb::Man(args) => shell::man(&args),
        Verb::Paths(args) => paths::list(&args),
        Verb::Path(verb) => paths::run(&verb),
        Verb::Ping(args) => paths::ping(&args),
        Verb::Events(args) => paths::events(&args),
        Verb::Monitor(args) => monitor::monitor(&args),
        Verb::Trace(args) => trace::trace(&args),
        Verb::Capture(args) => capture::capture(&args),
        Verb::Doctor(args) => doctor::doctor(&args),
        Verb::Bugreport(args) => bugreport::bugreport(&args),
        Verb::Version(args) => version::version(&args),
        Verb::Replay(args) => replay::run(&args).map(done),
        Verb::Prefilter(verb) => prefilter::run(&verb),
        Verb::Import(ImportVerb::WgQuick { file, out }) => import_wg_quick(&file, &out).map(done),
        Verb::Genkey => keys::genkey().map(done),
        Verb::Pubkey => keys::pubkey().map(done),
        Verb::Genpsk => keys::genpsk().map(done),
        Verb::Demo(args) => demo::demo(&args).map(done),
        Verb::Lab(args) => lab(args).map(done),
        Verb::Bench(verb) => measure(verb).map(done),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("patronus: {error:#}");
            let of_client = client_error(&error);
            ExitCode::from(match of_client {
                Some(error) => error.exit_code(),
                None => patronus_lab::exit_code(&error),
            })
        }
    }
}

/// What went wrong between this program and the gateway, if it is that.
fn client_error(error: &anyhow::Error) -> Option<&ClientError> {
    match error.downcast_ref::<ConsoleError>() {
        Some(ConsoleError::Client(error)) => Some(error),
        _ => error.downcast_ref(),
    }
}

fn measure(verb: BenchVerb) -> anyhow::Result<()> {
    match verb {
        BenchVerb::Aead(args) => bench::aead(args),
        BenchVerb::Engine(args) => bench::engine(args),
        BenchVerb::Policy(args) => bench::policy(args),
        BenchVerb::Paths(args) => bench::paths(args),
        BenchVerb::Throughput(args) => lab_bench::throughput(args),
        BenchVerb::Handshakes(args) => lab_bench::handshakes(&args),
        BenchVerb::Failover(args) => lab_bench::failover(args),
        BenchVerb::Prefilter(args) => lab_bench::prefilter(args),
        BenchVerb::Console(args) => console_bench::console(args),
        BenchVerb::Compare(args) => compare(args),
    }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("PATRONUS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    patronus_gateway::run(&RunOptions {
        config: args.config,
        uapi_dir: args.uapi_dir,
        api_dir: args.api_dir,
        exit_with_stdin: args.exit_with_stdin,
        report: args.report,
    })
}

fn lab(args: LabArgs) -> anyhow::Result<()> {
    patronus_lab::lab(&LabOptions {
        file: args.file,
        seed: args.seed,
        seconds: args.seconds.map(|seconds| seconds as f64),
        json: args.json,
        binary: this_binary()?,
    })
}

fn compare(args: CompareArgs) -> anyhow::Result<()> {
    let options = CompareOptions {
        peers: match args.peers == ["none"] {
            true => Vec::new(),
            false => peers(args.peers, &args.peer_path)?,
        },
        rounds: args.rounds as usize,
        seconds: args.seconds as f64,
        json: args.json,
        quick: args.quick,
        congestion_control: args.congestion_control,
        uplinks: args.uplinks,
        binary: this_binary()?,
    };
    let report = patronus_lab::compare(&options)?;
    lab_bench::write_out(args.out.as_deref(), || {
        lab_report::compare(&report, args.quick)
    })
}

/// The peers that a benchmark is to measure, each with its path where `--peer-path` gives one.
pub fn peers(
    names: Vec<String>,
    paths: &[String],
) -> anyhow::Result<Vec<(String, Option<PathBuf>)>> {
    let mut by_name = BTreeMap::new();
    for entry in paths {
        let Some((name, path)) = entry.split_once('=') else {
            anyhow::bail!(
                "--peer-path {entry}: write NAME=PATH, such as wireguard-go=/opt/wireguard-go"
            );
        };
        by_name.insert(name, PathBuf::from(path));
    }
    // One path serves a program at all its socket buffer sizes.
    let program = |peer: &str| peer.split('@').next().unwrap_or(peer).to_owned();
    if let Some(unknown) = by_name
        .keys()
        .find(|name| !names.iter().any(|peer| program(peer) == **name))
    {
        anyhow::bail!(
            "--peer-path {unknown}=…: `{unknown}` is not among --peers {}",
            names.join(",")
        );
    }
    let found = names.into_iter().map(|name| {
        let path = by_name.get(program(&name).as_str()).cloned();
        (name, path)
    });
    Ok(found.collect())
}

/// The program that the lab starts as a gateway: this one.
pub fn this_binary() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find the running program's file")
}

fn import_wg_quick(file: &Path, out: &Path) -> anyhow::Result<()> {
    let origin = file.display().to_string();
    let name = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or("site");
    let text = patronus_config::load::read_text(file, &origin)?;
    let imported = patronus_config::wg_quick::import(&text, &origin, name)?;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(out)
        .with_context(|| format!("cannot make {}", out.display()))?;
    let config = out.join(format!("{name}.toml"));
    let secrets = imported.secrets.iter();
    let secrets = secrets.map(|secret| (out.join(&secret.file), secret.contents.as_bytes()));
    let mut written: Vec<PathBuf> = Vec::new();
    for (path, contents) in secrets.chain([(config.clone(), imported.toml.as_bytes())]) {
        match write_new(&path, contents) {
            Ok(()) => written.push(path),
            Err(error) => {
                // Half an import would be in the way of the next one.
                for made in &written {
                    let _ = std::fs::remove_file(made);
                }
                return Err(error);
            }
        }
    }
    for note in &imported.notes {
        eprintln!("note: {note}");
    }
    for path in written {
        println!("{}", path.display());
    }
    println!("check it with: patronus config check {}", config.display());
    Ok(())
}

/// Writes a file that did not exist, readable by its owner only.
fn write_new(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file =
        opened.with_context(|| format!("cannot make {}: it must not exist yet", path.display()))?;
    file.write_all(contents)
        .with_context(|| format!("cannot write {}", path.display()))
}
