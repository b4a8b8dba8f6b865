//! `patronus bugreport`: a folder with what helps to find a fault, and without key material.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use patronus_api::{Client, ClientError, EventsQuery, FlowsQuery, HistoryQuery};
use serde::Serialize;

use crate::gateway::Gateway;
use crate::paths::words::utc;
use crate::{doctor, print, version};

/// The command line of `bugreport`.
#[derive(Debug, Args)]
pub struct BugreportArgs {
    /// The folder, which must not exist yet; one named by the time if absent
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The configuration file, where no gateway says which one it is
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/patronus/patronus.toml"
    )]
    config: PathBuf,
    /// Also list live flows: who talks to whom
    #[arg(long)]
    flows: bool,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The end of `bugreport --help`.
pub const HELP: &str = "\
Example:
  patronus bugreport -o report && tar czf report.tar.gz report

Keys of all kinds, public ones too, are written as key-1, key-2, … through all
files. Names and addresses stay: read the files before you hand them on.

Exit codes: 0 whole, 1 cannot be written, 2 usage, 3 parts are missing (see
missing.txt), 5 no gateway answers (what the machine tells is written all the
same).";

/// What `--json` prints.
#[derive(Serialize)]
struct Written {
    dir: String,
    files: Vec<String>,
    missing: Vec<String>,
}

/// Writes a report.
pub fn bugreport(args: &BugreportArgs) -> anyhow::Result<u8> {
    // It tells of this machine too.
    args.gateway.socket()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let unix_ms = now.map_or(0, |it| it.as_millis() as u64);
    let dir = args.out.clone().unwrap_or_else(|| {
        let time = utc(unix_ms).replace(':', "");
        PathBuf::from(format!("patronus-bugreport-{time}"))
    });
    let made = fs::DirBuilder::new().mode(0o700).create(&dir);
    made.with_context(|| format!("cannot make {}", dir.display()))?;
    let mut report = Folder {
        dir,
        cleaner: Cleaner::default(),
        files: Vec::new(),
        missing: Vec::new(),
    };
    report.json("version.json", Ok(version::version_of(None)))?;
    let examined = doctor::examine(&args.gateway, &args.config);
    report.json("doctor.json", Ok(&examined))?;
    let client = args.gateway.connect();
    match &client {
        Ok(client) => report.gateway(client, args.flows)?,
        Err(error) => report.missing.push(format!("gateway: {error:#}")),
    }
    let file = fs::read_to_string(&examined.config);
    match file {
        Ok(text) => report.text("file.toml", &text)?,
        Err(error) => report.missing.push(format!("file.toml: {error}")),
    }
    if !report.missing.is_empty() {
        let missing = report.missing.join("\n") + "\n";
        report.text("missing.txt", &missing)?;
    }
    let dir = report.dir.display().to_string();
    let is_whole = report.missing.is_empty();
    match args.json {
        true => print::json(&Written {
            dir,
            files: report.files,
            missing: report.missing,
        })?,
        false => print::text_out(&format!(
            "{dir}: {}; names and addresses are in it, keys are not\n",
            print::count(report.files.len(), "file", "files")
        )),
    }
    Ok(match (client.is_ok(), is_whole) {
        (false, _) => 5,
        (true, false) => 3,
        (true, true) => 0,
    })
}

/// A report in the making.
struct Folder {
    dir: PathBuf,
    cleaner: Cleaner,
    files: Vec<String>,
    missing: Vec<String>,
}

impl Folder {
    /// What a gateway tells.
    fn gateway(&mut self, client: &Client, flows: bool) -> anyhow::Result<()> {
        self.json("status.json", client.status())?;
        self.json("peers.json", client.peers())?;
        self.json("paths.json", client.paths(None))?;
        self.json("workers.json", client.workers())?;
        self.json("counters.json", client.counters())?;
        self.json("policy-rules.json", client.rules())?;
        self.json("prefilter.json", client.prefilter())?;
        self.json("events.json", client.events(&EventsQuery::default()))?;
        self.json("config-history.json", client.config())?;
        match client.config_text("running") {
            Ok(told) => self.text("running.toml", &told.text)?,
            Err(error) => self.missing.push(format!("running.toml: {error}")),
        }
        match client.metrics() {
            Ok(text) => self.text("metrics.txt", &text)?,
            Err(error) => self.missing.push(format!("metrics.txt: {error}")),
        }
        for metric in HISTORY {
            let query = HistoryQuery {
                metric: Some(metric.to_owned()),
                since: Some(6 * 3600),
                label: None,
                points: Some(360),
            };
            self.json(&format!("history-{metric}.json"), client.history(&query))?;
        }
        if flows {
            let query = FlowsQuery {
                limit: Some(10_000),
                ..FlowsQuery::default()
            };
            self.json("flows.json", client.flows(&query))?;
        }
        Ok(())
    }

    fn json(
        &mut self,
        name: &str,
        value: Result<impl Serialize, ClientError>,
    ) -> anyhow::Result<()> {
        match value {
            Ok(value) => {
                let text = serde_json::to_string_pretty(&value)?;
                self.text(name, &(text + "\n"))
            }
            Err(error) => {
                self.missing.push(format!("{name}: {error}"));
                Ok(())
            }
        }
    }

    fn text(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        let text = self.cleaner.clean(text);
        write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        self.files.push(name.to_owned());
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}

/// Takes keys out of texts, and calls each by the same name everywhere.
#[derive(Debug, Default)]
struct Cleaner {
    names: HashMap<String, usize>,
}

impl Cleaner {
    /// The text without anything of the length and the letters of a key: 32 bytes in base64 or in hex, also inside longer
    /// words.
    fn clean(&mut self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(is_key_letter) {
            let (before, word) = rest.split_at(start);
            let end = word.find(|it| !is_key_letter(it)).unwrap_or(word.len());
            let (word, after) = word.split_at(end);
            clean += before;
            match is_key(word) {
                true => clean += &self.name(word),
                false => clean += word,
            }
            rest = after;
        }
        clean + rest
    }

    fn name(&mut self, word: &str) -> String {
        let next = self.names.len() + 1;
        let number = *self.names.entry(word.to_owned()).or_insert(next);
        format!("key-{number}")
    }
}

/// Letters of base64 and of its form for URLs.
fn is_key_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "+/=_-".contains(letter)
}

/// Paths have slashes too: what begins with one, or is made of words, is no key.
fn is_key(word: &str) -> bool {
    let letters = word.trim_end_matches('=');
    let has_digit = letters.bytes().any(|it| it.is_ascii_digit());
    let has_upper = letters.bytes().any(|it| it.is_ascii_uppercase());
    let is_hex = letters.bytes().all(|it| it.is_ascii_hexdigit());
    let is_base64 = word.ends_with('=') || (has_digit && has_upper && !word.starts_with('/'));
    (letters.len() >= HEX_LEN && is_hex) || (letters.len() >= BASE64_LEN && is_base64)
}

/// Metrics of the last hours that tell most.
const HISTORY: [&str; 5] = [
    "path_rtt_ms",
    "path_tx_loss_pct",
    "path_rx_loss_pct",
    "peers_up",
    "site_tx_bps",
];
const HEX_LEN: usize = 64;
/// Without the sign at its end.
const BASE64_LEN: usize = 43;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_by_one_name_through_all_texts_and_all_else_stays() {
        let mut cleaner = Cleaner::default();
        let key = patronus_config::keys::genkey();
        let text = format!(
            "public_key = \"{}\"\npath = \"/etc/patronus/a-long-folder-name/another/branch.key\"\n",
            *key
        );
        let clean = cleaner.clean(&text);
        assert_eq!(
            clean,
            "public_key = \"key-1\"\npath = \"/etc/patronus/a-long-folder-name/another/branch.key\"\n"
        );
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(cleaner.clean(&format!("{hex} {}", *key)), "key-2 key-1");
        assert_eq!(cleaner.clean("x\u{e9}=10.1.0.0/16"), "x\u{e9}=10.1.0.0/16");
    }

    #[test]
    fn a_thousand_keys_are_all_found() {
        for _ in 0..1000 {
            let key = patronus_config::keys::genkey();
            let clean = Cleaner::default().clean(&format!("key={}", *key));
            assert!(!clean.contains(&key[..20]), "{clean}");
        }
    }
}
