//! What only the file system can say: modes, kinds of files, relative paths.

#![allow(clippy::unwrap_used)] // Helpers outside `#[test]` functions count as code elsewhere.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use patronus_config::{check, load};
use tempfile::TempDir;

const ALICE_PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n";
const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

/// A folder with `patronus.toml` and `hq.key` of the given mode.
fn site(mode: u32) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("hq.key");
    fs::write(&key, ALICE_PRIVATE).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
    let file = folder.path().join("patronus.toml");
    fs::write(
        &file,
        "[site]\nname = \"hq\"\nprivate_key_file = \"hq.key\"\n",
    )
    .unwrap();
    (folder, file)
}

fn refusal(file: &Path) -> String {
    load(file).unwrap_err().to_string()
}

#[test]
fn a_site_loads_with_its_key_beside_the_file_and_sums_up_in_eighty_columns() {
    let (_folder, file) = site(0o600);
    let summary = check(&file).unwrap().to_string();
    let expected = format!(
        "{}: ok\n  site hq, interface patronus0, port 51820\n  public key {ALICE_PUBLIC}\n  \
        0 peers, 0 allowed IPs, routes in main",
        file.display()
    );
    assert_eq!(summary, expected);
    assert!(
        summary
            .lines()
            .skip(1)
            .all(|line| line.chars().count() <= 80)
    );
}

#[test]
fn a_key_file_that_others_may_touch_is_refused_with_the_command_that_closes_it() {
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666] {
        let (folder, file) = site(mode);
        let key = folder.path().join("hq.key");
        let expected = format!(
            "{}:3: [site] private_key_file: {1} is open to other users (mode {mode:04o}): chmod \
            600 {1}",
            file.display(),
            key.display()
        );
        assert_eq!(refusal(&file), expected);
    }
    for mode in [0o400, 0o600, 0o700] {
        let (_folder, file) = site(mode);
        assert!(load(&file).is_ok(), "{mode:o}");
    }
}

#[test]
fn a_folder_and_a_pipe_are_no_key_files_and_hold_nothing_up() {
    let (folder, file) = site(0o600);
    let key = folder.path().join("hq.key");
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert!(
        refusal(&file).contains("hq.key is not a regular file"),
        "{}",
        refusal(&file)
    );
    fs::remove_dir(&key).unwrap();
    nix::unistd::mkfifo(&key, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(
        refusal(&file).contains("hq.key is not a regular file"),
        "{}",
        refusal(&file)
    );
}

#[test]
fn a_key_file_that_is_long_or_no_text_is_refused() {
    let (folder, file) = site(0o600);
    let key = folder.path().join("hq.key");
    for contents in [vec![b'A'; 300], vec![0xff; 44]] {
        fs::write(&key, contents).unwrap();
        assert!(
            refusal(&file).contains("hq.key does not hold a key: put the 44 characters"),
            "{}",
            refusal(&file)
        );
    }
}

#[test]
fn a_key_file_that_is_a_link_to_a_closed_file_is_taken() {
    let (folder, file) = site(0o600);
    let key = folder.path().join("hq.key");
    fs::rename(&key, folder.path().join("real.key")).unwrap();
    std::os::unix::fs::symlink("real.key", &key).unwrap();
    assert!(load(&file).is_ok());
}

#[test]
fn a_missing_or_unreadable_configuration_says_what_to_do() {
    let (folder, file) = site(0o600);
    let absent = folder.path().join("absent.toml");
    assert!(
        refusal(&absent).contains("cannot read: No such file or directory"),
        "{}",
        refusal(&absent)
    );
    assert!(
        refusal(folder.path()).contains("cannot read: Is a directory"),
        "{}",
        refusal(folder.path())
    );
    fs::write(&file, b"[site]\nname = \"h\xff\"\n").unwrap();
    assert!(
        refusal(&file).ends_with("patronus.toml:2: not UTF-8 text: save the file as UTF-8"),
        "{}",
        refusal(&file)
    );
    fs::write(&file, vec![b'#'; (8 << 20) + 1]).unwrap();
    assert!(
        refusal(&file).ends_with("larger than 8 MiB: not a configuration file"),
        "{}",
        refusal(&file)
    );
}
