//! A gateway that cannot start says in one line what is missing and what helps, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use common::{Conf, PeerConf, Place, can_run, has, output_of, patronus, until};

/// The error of a start that failed with `code`: one line, and all that there is.
fn refusal(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let line = stderr.strip_suffix('\n').unwrap();
    assert!(
        line.starts_with("patronus: ") && !line.contains('\n'),
        "not one line: {stderr}"
    );
    line.to_owned()
}

#[track_caller]
fn assert_says(line: &str, fragments: &[&str]) {
    for fragment in fragments {
        assert!(line.contains(fragment), "no `{fragment}` in: {line}");
    }
}

fn conf() -> Conf {
    Conf::new("patronus0", "10.255.0.1/24")
}

/// The command under `setpriv ARGS`.
fn under_setpriv(args: &[&str], inner: &Command) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(args)
        .arg(inner.get_program())
        .args(inner.get_args());
    command
}

/// The command in a mount namespace that a shell has prepared first.
fn after(preparation: &str, inner: &Command) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg(format!("{preparation} && exec \"$@\""))
        .arg("sh");
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

#[test]
fn a_missing_configuration_is_named_with_the_option_that_names_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("absent.toml");
    let output = patronus()
        .arg("run")
        .arg("--config")
        .arg(&path)
        .output()
        .unwrap();
    assert_says(
        &refusal(&output, 1),
        &[path.to_str().unwrap(), "cannot read", "--config"],
    );
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_chmod_that_helps() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    let key = place.path("key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let line = refusal(&place.failing_start(&conf()), 1);
    assert_says(
        &line,
        &[
            "private_key_file",
            "mode 0644",
            &format!("chmod 600 {}", key.display()),
        ],
    );
    assert!(!line.contains(&place.keys.private));
    assert!(!place.has_interface("patronus0"));
}

#[test]
fn a_missing_key_comes_with_the_command_that_makes_it() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    std::fs::remove_file(place.path("key")).unwrap();
    let line = refusal(&place.failing_start(&conf()), 1);
    assert_says(&line, &["does not exist", "umask 077; patronus genkey >"]);
}

#[test]
fn without_net_admin_the_capability_is_named_and_how_to_get_it() {
    if !can_run() || !has("setpriv", "util-linux") {
        return;
    }
    let place = Place::new("one site");
    place.configure(&conf());
    let bare = ["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"];
    let output = output_of(
        &place.namespace,
        &mut under_setpriv(&bare, &place.run_command()),
    );
    let line = refusal(&output, 1);
    assert_says(
        &line,
        &[
            "CAP_NET_ADMIN",
            "run as root",
            "setcap cap_net_admin+ep",
            env!("CARGO_BIN_EXE_patronus"),
        ],
    );
    assert!(!place.has_interface("patronus0") && !place.has_socket("patronus0"));
}

/// A place whose files belong to somebody without privilege.
fn unprivileged_place() -> Place {
    let place = Place::new("one site");
    place.configure(&conf());
    for path in [
        place.dir.path(),
        &place.path("key"),
        &place.path("patronus.toml"),
    ] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    place
}

/// The binary where anybody may run it: the target directory may be root's alone.
fn copy_of_the_binary(place: &Place) -> String {
    let copy = place.path("patronus");
    std::fs::copy(env!("CARGO_BIN_EXE_patronus"), &copy).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    copy.to_str().unwrap().to_owned()
}

#[test]
fn another_user_hears_what_is_missing_whatever_the_mode_of_the_device() {
    if !can_run() || !has("setpriv", "util-linux") {
        return;
    }
    let place = unprivileged_place();
    let mut inner = Command::new(copy_of_the_binary(&place));
    inner.args(place.run_command().get_args());
    let nobody = format!("--reuid={NOBODY}");
    let user = under_setpriv(&[&nobody, "--regid=65534", "--clear-groups"], &inner);
    for (mode, wanted) in [
        ("0600", "/dev/net/tun may not be opened"),
        ("0666", "CAP_NET_ADMIN"),
    ] {
        // A device file of our own: nobody else's is changed.
        let device =
            format!("mount -t tmpfs none /dev/net && mknod -m {mode} /dev/net/tun c 10 200");
        let output = output_of(&place.namespace, &mut after(&device, &user));
        assert_says(&refusal(&output, 1), &[wanted, "run as root"]);
    }
    assert!(!place.has_interface("patronus0"));
}

#[test]
fn a_user_with_net_admin_alone_needs_no_root_but_a_place_for_the_socket() {
    if !can_run() || !has("setpriv", "util-linux") {
        return;
    }
    let place = unprivileged_place();
    let binary = copy_of_the_binary(&place);
    let capable = |uapi_dir: &Path| {
        let mut inner = Command::new(&binary);
        inner
            .arg("run")
            .arg("--config")
            .arg(place.path("patronus.toml"))
            .arg("--uapi-dir")
            .arg(uapi_dir)
            .arg("--api-dir")
            .arg(place.path("sockets"));
        inner.arg("--report").arg(place.path("report.json"));
        let nobody = format!("--reuid={NOBODY}");
        let args = [
            &nobody,
            "--regid=65534",
            "--clear-groups",
            "--inh-caps",
            "-all,+net_admin",
            "--ambient-caps",
            "-all,+net_admin",
            "--bounding-set",
            "-all,+net_admin",
        ];
        after(
            "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200",
            &under_setpriv(&args, &inner),
        )
    };
    let output = output_of(&place.namespace, &mut capable(Path::new("/run/wireguard")));
    assert_says(
        &refusal(&output, 1),
        &["/run/wireguard", "Permission denied", "--uapi-dir"],
    );
    assert!(!place.has_interface("patronus0"));

    let daemon = place.start_with("patronus0", &mut capable(&place.path("sockets")));
    assert!(place.has_interface("patronus0"));
    daemon.stop();
    assert!(!place.has_interface("patronus0"));
}

#[test]
fn without_a_tun_device_the_module_and_the_containers_option_are_named() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    place.configure(&conf());
    for preparation in [
        "mount -t tmpfs none /dev/net",
        // The node is there and no driver behind it.
        "mount -t tmpfs none /dev/net && mknod -m 600 /dev/net/tun c 10 254",
    ] {
        let output = output_of(
            &place.namespace,
            &mut after(preparation, &place.run_command()),
        );
        let line = refusal(&output, 1);
        assert_says(
            &line,
            &[
                "/dev/net/tun is missing",
                "modprobe tun",
                "--device /dev/net/tun",
            ],
        );
    }
}

#[test]
fn a_port_in_use_is_named_with_the_command_that_shows_by_whom() {
    if !can_run() {
        return;
    }
    for taken in ["0.0.0.0:51820", "127.0.0.1:51820", "[::1]:51820"] {
        let place = Place::new("one site");
        let _socket = place
            .namespace
            .run(|| UdpSocket::bind(taken))
            .unwrap()
            .unwrap();
        let line = refusal(&place.failing_start(&conf()), 1);
        assert_says(
            &line,
            &[
                "UDP port 51820 is in use",
                "ss -ulpn 'sport = 51820'",
                "listen_port",
            ],
        );
        assert!(
            !place.has_interface("patronus0") && !place.has_socket("patronus0"),
            "{taken}"
        );
    }
}

#[test]
fn an_interface_of_the_name_is_never_taken_over() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    place.ip_do("link add patronus0 type veth peer name other");
    let line = refusal(&place.failing_start(&conf()), 1);
    assert_says(
        &line,
        &["interface patronus0 exists", "ip link delete patronus0"],
    );
    assert!(place.has_interface("patronus0"), "it is somebody else's");
    // A second gateway with the same file: the first one goes on.
    let place = Place::new("one site");
    let first = place.start(&conf());
    let line = refusal(&output_of(&place.namespace, &mut place.run_command()), 1);
    assert_says(&line, &["interface patronus0 exists"]);
    assert!(place.has_interface("patronus0") && place.has_socket("patronus0"));
    first.stop();
}

#[test]
fn a_control_socket_that_somebody_serves_is_left_alone() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    let dir = place.path("sockets");
    std::fs::create_dir(&dir).unwrap();
    let path = dir.join("patronus0.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    place.configure(&conf());
    let mut once = patronus();
    once.arg("run")
        .arg("--config")
        .arg(place.path("patronus.toml"))
        .arg("--uapi-dir")
        .arg(&dir);
    let line = refusal(&output_of(&place.namespace, &mut once), 1);
    assert_says(
        &line,
        &[path.to_str().unwrap(), "running program", "interface"],
    );
    assert!(path.exists() && !place.has_interface("patronus0"));

    // Not a socket: not ours to remove.
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "somebody's notes").unwrap();
    let line = refusal(&output_of(&place.namespace, &mut once), 1);
    assert_says(&line, &[path.to_str().unwrap(), "not a socket"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's notes");
}

#[test]
fn an_uplink_that_is_not_there_and_a_route_that_is_taken_are_named() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    let mut nowhere = conf();
    nowhere.uplink = "interface = \"nowhere\"\n".to_owned();
    let line = refusal(&place.failing_start(&nowhere), 1);
    assert_says(&line, &["no interface `nowhere`", "ip link"]);

    place.ip_do("link add blocker type veth peer name blocked");
    place.ip_do("link set blocker up");
    place.ip_do("route add 10.66.0.0/16 dev blocker");
    let blocked = conf().peer(PeerConf::new(
        &common::Keys::new().public,
        &["10.66.0.0/16"],
    ));
    let line = refusal(&place.failing_start(&blocked), 1);
    assert_says(
        &line,
        &[
            "add route 10.66.0.0/16",
            "File exists",
            "ip route show 10.66.0.0/16",
        ],
    );
    until("the interface is gone", || {
        !place.has_interface("patronus0")
    });
    assert!(!place.has_socket("patronus0"));
}

#[test]
fn an_address_of_a_family_that_is_switched_off_is_named_and_nothing_stays() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    place
        .namespace
        .sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        .unwrap();
    let mut six = conf();
    six.addresses.push("fd00::1/64".to_owned());
    let line = refusal(&place.failing_start(&six), 1);
    assert_says(
        &line,
        &["add address fd00::1/64", "patronus0", "disable_ipv6"],
    );
    until("the interface is gone", || {
        !place.has_interface("patronus0")
    });
}

#[test]
fn a_report_that_cannot_be_written_is_said_before_the_start_and_not_after_days() {
    if !can_run() {
        return;
    }
    let place = Place::new("one site");
    place.configure(&conf());
    let mut command = patronus();
    command
        .arg("run")
        .arg("--config")
        .arg(place.path("patronus.toml"))
        .arg("--report")
        .arg("/nowhere/report.json");
    let output = output_of(&place.namespace, &mut command);
    assert_says(&refusal(&output, 1), &["/nowhere/report.json", "--report"]);
}

/// The user `nobody`.
const NOBODY: u32 = 65534;
