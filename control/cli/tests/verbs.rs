//! The verbs that need neither root nor network: keys, `config check`, `import wg-quick`, help.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Conf, Keys, PeerConf, has, mode_of, patronus};

/// Runs a program with `input` on standard input.
fn run(command: &mut Command, input: &str) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that wants no input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn ours(args: &[&str], input: &str) -> Output {
    run(patronus().args(args), input)
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The 32 bytes of a key in base64.
fn bytes_of(line: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} in base64"),
    };
    let text = line.strip_suffix("=\n").unwrap();
    assert_eq!(text.len(), 43);
    let bits: Vec<u8> = text
        .bytes()
        .flat_map(|byte| (0..6).rev().map(move |at| digit(byte) >> at & 1))
        .collect();
    assert_eq!(bits[256..], [0, 0], "a canonical tail");
    bits[..256]
        .chunks(8)
        .map(|bits| bits.iter().fold(0, |sum, bit| sum << 1 | bit))
        .collect()
}

#[test]
fn genkey_prints_a_new_clamped_key_and_genpsk_any_key() {
    let keys: Vec<String> = (0..8).map(|_| stdout(&ours(&["genkey"], ""))).collect();
    for key in &keys {
        let bytes = bytes_of(key);
        assert_eq!(
            (bytes[0] & 7, bytes[31] & 0x80, bytes[31] & 0x40),
            (0, 0, 0x40),
            "{key}"
        );
    }
    let psks: Vec<String> = (0..8).map(|_| stdout(&ours(&["genpsk"], ""))).collect();
    assert!(
        psks.iter().any(|psk| bytes_of(psk)[0] & 7 != 0),
        "a preshared key is not clamped"
    );
    let mut all: Vec<_> = keys.iter().chain(&psks).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 16);
}

#[test]
fn pubkey_agrees_with_the_published_pair_and_with_wg_for_any_key() {
    // RFC 7748, section 6.1: Alice's keys.
    let alice = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    assert_eq!(
        stdout(&ours(&["pubkey"], alice)),
        "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n"
    );
    if !has("wg", "wireguard-tools") {
        return;
    }
    for _ in 0..4 {
        // Any 32 bytes are taken and clamped, as wg does: a preshared key is such.
        for verb in ["genkey", "genpsk"] {
            let key = stdout(&ours(&[verb], ""));
            let theirs = stdout(&run(Command::new("wg").arg("pubkey"), &key));
            assert_eq!(stdout(&ours(&["pubkey"], &key)), theirs);
            assert_eq!(
                stdout(&ours(&["pubkey"], key.trim())),
                theirs,
                "the newline is optional"
            );
        }
        let key = stdout(&run(Command::new("wg").arg("genkey"), ""));
        assert_eq!(
            stdout(&ours(&["pubkey"], &key)),
            stdout(&run(Command::new("wg").arg("pubkey"), &key))
        );
    }
}

#[test]
fn what_is_no_key_on_standard_input_is_refused_and_not_repeated() {
    let key = Keys::new().private;
    let too_long = "A".repeat(5000);
    let not_canonical = format!("{}B=", &key[..42]);
    for input in [
        "",
        "\n",
        "nonsense",
        &key[..43],
        &format!("{key}x"),
        &format!("{key}\n{key}"),
        &too_long,
        &not_canonical,
        "\u{0}",
    ] {
        let output = ours(&["pubkey"], input);
        assert_eq!(output.status.code(), Some(1), "{input:?}: {output:?}");
        assert!(output.stdout.is_empty());
        let text = stderr(&output);
        assert!(
            text.starts_with("patronus: ") && text.lines().count() == 1,
            "{text}"
        );
        assert!(
            text.contains("Key is not the correct length or format"),
            "wg's words: {text}"
        );
        assert!(
            !text.contains(&key[..20]),
            "a secret on the terminal: {text}"
        );
    }
    let output = run(patronus().arg("pubkey"), "\u{e9}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_secret_on_its_way_into_a_file_for_all_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        let path = dir.path().join(format!("{mode:o}"));
        let file = std::fs::File::create(&path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .unwrap();
        let output = patronus().arg("genkey").stdout(file).output().unwrap();
        assert!(output.status.success());
        assert_eq!(
            stderr(&output).contains("umask 077"),
            warned,
            "{mode:o}: {output:?}"
        );
    }
}

/// A folder with a good configuration and its key.
fn good() -> (tempfile::TempDir, Conf) {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, Keys::new().private).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let conf = Conf::new("patronus0", "10.255.0.1/24")
        .peer(PeerConf::new(&Keys::new().public, &["10.2.0.0/16"]));
    (dir, conf)
}

fn check(dir: &Path, text: &str) -> Output {
    let path = dir.join("patronus.toml");
    std::fs::write(&path, text).unwrap();
    patronus()
        .args(["config", "check"])
        .arg(path)
        .output()
        .unwrap()
}

#[test]
fn config_check_says_what_a_good_file_sets_up_and_every_fault_of_a_bad_one() {
    let (dir, conf) = good();
    let text = stdout(&check(dir.path(), &conf.text()));
    for fragment in [
        "ok",
        "interface patronus0",
        "port 51820",
        "1 peer",
        "public key ",
    ] {
        assert!(text.contains(fragment), "{fragment} in {text}");
    }
    assert_eq!(text.lines().count(), 4);

    let mut bad = conf.clone();
    bad.mtu = 100;
    bad.peers[0].more = "keepalife = 25\n".to_owned();
    bad.peers[0].allowed_ips.push("10.0.0.0/33".to_owned());
    let output = check(dir.path(), &bad.text());
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = stderr(&output);
    let origin = dir.path().join("patronus.toml").display().to_string();
    for fragment in [":5: ", "mtu", "did you mean `keepalive`", "10.0.0.0/33"] {
        assert!(text.contains(fragment), "{fragment} in {text}");
    }
    assert_eq!(
        text.matches(&origin).count(),
        3,
        "a line for each fault: {text}"
    );

    let output = patronus()
        .args(["config", "check", "/nowhere/at.all"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("/nowhere/at.all: cannot read"),
        "{output:?}"
    );
}

#[test]
fn import_wg_quick_makes_private_files_that_pass_the_check_and_overwrites_none() {
    let dir = tempfile::tempdir().unwrap();
    let (own, peer) = (Keys::new(), Keys::new());
    let psk = patronus_config::keys::genpsk().to_string();
    let source = dir.path().join("wg0.conf");
    let text = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.0.0.1/24, fd00::1/64\nListenPort = 51821\nMTU = 1400\n\
         PostUp = echo hello\n\n[Peer]\nPublicKey = {}\nPresharedKey = {psk}\nEndpoint = 192.0.2.1:51820\n\
         AllowedIPs = 10.1.0.0/16, fd01::/64\nPersistentKeepalive = 25\n",
        own.private, peer.public
    );
    std::fs::write(&source, &text).unwrap();
    let out = dir.path().join("made");
    let import = |out: &Path| {
        patronus()
            .args(["import", "wg-quick"])
            .arg(&source)
            .arg("--out")
            .arg(out)
            .output()
            .unwrap()
    };

    let output = import(&out);
    let listed = stdout(&output);
    assert!(
        stderr(&output).contains("PostUp"),
        "what is not taken over is said: {output:?}"
    );
    assert_eq!(mode_of(&out), 0o700);
    let mut files: Vec<_> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in &files {
        assert_eq!(mode_of(file), 0o600, "{}", file.display());
        assert!(listed.contains(file.to_str().unwrap()), "{listed}");
    }
    let config = out.join("wg0.toml");
    let made = std::fs::read_to_string(&config).unwrap();
    assert!(
        !made.contains(&own.private) && !made.contains(&psk),
        "secrets stand in files of their own"
    );
    let checked = stdout(
        &patronus()
            .args(["config", "check"])
            .arg(&config)
            .output()
            .unwrap(),
    );
    for fragment in [own.public.as_str(), "port 51821", "1 peer", "interface wg0"] {
        assert!(checked.contains(fragment), "{fragment} in {checked}");
    }

    let before: Vec<_> = files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    let output = import(&out);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("must not exist yet"), "{output:?}");
    let after: Vec<_> = files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    assert!(before == after, "nothing is overwritten");

    // One of the files is in the way: none of the others is made.
    let half = dir.path().join("half");
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("wg0.toml"), "mine").unwrap();
    assert_eq!(import(&half).status.code(), Some(1));
    assert_eq!(
        std::fs::read_dir(&half).unwrap().count(),
        1,
        "half an import is none"
    );
    assert_eq!(
        std::fs::read_to_string(half.join("wg0.toml")).unwrap(),
        "mine"
    );
}

#[test]
fn a_wg_quick_file_with_faults_makes_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("wg0.conf");
    std::fs::write(&source, "[Interface]\nAdress = 10.0.0.1/24\n").unwrap();
    let out = dir.path().join("made");
    let output = patronus()
        .args(["import", "wg-quick"])
        .arg(&source)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("wg0.conf:2"), "{output:?}");
    assert!(!out.exists());
}

#[test]
fn every_verb_has_help_and_an_unknown_one_gets_exit_code_2() {
    let verbs: [&[&str]; 12] = [
        &[],
        &["run"],
        &["demo"],
        &["config"],
        &["config", "check"],
        &["import"],
        &["import", "wg-quick"],
        &["bench"],
        &["bench", "compare"],
        &["genkey"],
        &["pubkey"],
        &["genpsk"],
    ];
    for verb in verbs {
        let output = patronus().args(verb).arg("--help").output().unwrap();
        let text = stdout(&output);
        assert!(
            text.contains("Usage: patronus") && text.contains("--help"),
            "{verb:?}: {text}"
        );
        assert!(output.stderr.is_empty());
    }
    let help = stdout(&patronus().arg("--help").output().unwrap());
    for verb in [
        "run", "demo", "config", "import", "bench", "genkey", "pubkey", "genpsk",
    ] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(verb)),
            "{verb} in {help}"
        );
    }
    let version = stdout(&patronus().arg("--version").output().unwrap());
    assert_eq!(version, format!("patronus {}\n", env!("CARGO_PKG_VERSION")));
    for wrong in [
        &["fly"][..],
        &["run", "--fly"],
        &["config", "check"],
        &["demo", "--sites", "9"],
        &[],
    ] {
        let output = patronus().args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{wrong:?}: {output:?}"
        );
    }
}

#[test]
fn completions_and_manual_pages_come_from_the_command_line_itself() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&ours(&["completions", shell], ""));
        for verb in ["workers", "history", "explain"] {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let told = stdout(&ours(&["man", pages.to_str().unwrap()], ""));
    for name in ["patronus.1", "patronus-peers.1", "patronus-path-pin.1"] {
        let page = std::fs::read_to_string(pages.join(name)).unwrap();
        assert!(page.contains(".SH NAME"), "{name}");
        assert!(told.contains(name), "{told}");
    }
}

#[test]
fn the_manual_page_of_the_console_has_every_key_of_the_one_list() {
    let dir = tempfile::tempdir().unwrap();
    stdout(&ours(&["man", dir.path().to_str().unwrap()], ""));
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let page = read("patronus-console.1");
    // A hyphen that is meant as a minus, as manual pages write it.
    let roff = |text: &str| text.replace('-', "\\-");
    for binding in patronus_tui::BINDINGS {
        let screens = patronus_tui::Screen::ALL.into_iter();
        let places = match binding.scope {
            patronus_tui::Scope::Everywhere => vec![String::new()],
            patronus_tui::Scope::On(on) => screens
                .filter(|screen| on.contains(screen))
                .map(|screen| format!(" on {}", screen.title()))
                .collect(),
        };
        for place in places {
            let entry = format!(
                "\\fB{}\\fR{place}\n{}.",
                roff(binding.label),
                roff(binding.words)
            );
            assert!(page.contains(&entry), "{entry}\n{page}");
        }
    }
    assert!(!read("patronus-peers.1").contains(".SH KEYS"));
}
