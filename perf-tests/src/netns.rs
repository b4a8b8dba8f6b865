//! Namespaces without names: a network namespace (and, for a gateway, a private `/run`) that lives as long
//! as the value and the processes inside it, so that nothing is left on disk even after `kill -9`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::LabError;

/// A network namespace of our own; cloning shares it.
#[derive(Clone, Debug)]
pub struct Namespace {
    label: Arc<str>,
    net: Arc<OwnedFd>,
    /// The mount namespace with a tmpfs of its own over `/run`, where the namespace has one.
    mounts: Option<Arc<OwnedFd>>,
}

impl Namespace {
    /// A new network namespace with `lo` down; it shares the caller's file system.
    ///
    /// # Errors
    /// [`LabError::NoNamespaces`] without CAP_SYS_ADMIN.
    pub fn new(label: &str) -> Result<Self, LabError> {
        let label: Arc<str> = label.into();
        let net = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(refused("unshare(CLONE_NEWNET)"))?;
            open_own("net")
        })?;
        Ok(Self {
            label,
            net: Arc::new(net),
            mounts: None,
        })
    }

    /// A network namespace and a mount namespace in which `/run` is empty and private: a gateway's UAPI
    /// socket, configuration and keys can be seen only inside.
    ///
    /// # Errors
    /// [`LabError::NoNamespaces`] without CAP_SYS_ADMIN.
    pub fn with_private_run(label: &str) -> Result<Self, LabError> {
        let label: Arc<str> = label.into();
        let (net, mounts) = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .map_err(refused("unshare(CLONE_NEWNET | CLONE_NEWNS)"))?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
                .map_err(refused("making the mounts private"))?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(
                Some("tmpfs"),
                "/run",
                Some("tmpfs"),
                flags,
                Some("mode=0755,size=64m"),
            )
            .map_err(refused("mounting a tmpfs over /run"))?;
            Ok((open_own("net")?, open_own("mnt")?))
        })?;
        Ok(Self {
            label,
            net: Arc::new(net),
            mounts: Some(Arc::new(mounts)),
        })
    }

    /// The name in progress lines and errors.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The descriptor, for moving an interface here.
    pub(crate) fn net_fd(&self) -> &OwnedFd {
        &self.net
    }

    /// A path under which other programs of this user reach the namespace while this process lives:
    /// `nsenter --net=PATH`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }

    /// Runs `work` on a fresh thread inside the namespace and waits for it; a panic passes through.
    ///
    /// # Errors
    /// An I/O error when the namespace cannot be entered.
    pub fn run<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send,
        F: FnOnce() -> T + Send,
    {
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name(format!("in {}", self.label))
                .spawn_scoped(scope, || {
                    self.enter()?;
                    Ok(work())
                })?;
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts `work` on a thread of its own inside the namespace.
    ///
    /// # Errors
    /// An I/O error when no thread can be started; one from entering the namespace comes from `join`.
    pub fn start<T, F>(&self, work: F) -> io::Result<thread::JoinHandle<io::Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let namespace = self.clone();
        thread::Builder::new()
            .name(format!("in {}", self.label))
            .spawn(move || {
                namespace.enter()?;
                Ok(work())
            })
    }

    /// Starts a child process inside the namespace: it inherits the namespaces of the thread that forks.
    ///
    /// # Errors
    /// An I/O error when the program cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn())?
    }

    /// Writes `value` to `/proc/sys/KEY` as the namespace sees it (`/proc/sys/net` follows the thread).
    ///
    /// # Errors
    /// The I/O error with the key and the value in its text.
    pub fn sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        let path = format!("/proc/sys/{key}");
        self.run(|| std::fs::write(&path, value))?.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("writing {value} to {path} in {}: {error}", self.label),
            )
        })
    }

    /// Moves the calling thread into the namespace for good.
    fn enter(&self) -> io::Result<()> {
        if let Some(mounts) = &self.mounts {
            // A mount namespace can be entered only by a thread that shares its root and working
            // directory with no other thread.
            unshare(CloneFlags::CLONE_FS)?;
            setns(&**mounts, CloneFlags::CLONE_NEWNS)?;
        }
        setns(&*self.net, CloneFlags::CLONE_NEWNET)?;
        Ok(())
    }
}

/// Runs `work` on a thread whose namespaces may be changed, because it ends right after.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T, LabError> + Send) -> Result<T, LabError> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    })
}

fn open_own(kind: &str) -> Result<OwnedFd, LabError> {
    match File::open(format!("/proc/thread-self/ns/{kind}")) {
        Ok(file) => Ok(file.into()),
        Err(cause) => Err(LabError::NoNamespaces {
            what: "opening /proc/thread-self/ns",
            cause,
        }),
    }
}

fn refused(what: &'static str) -> impl Fn(nix::Error) -> LabError {
    move |error| LabError::NoNamespaces {
        what,
        cause: error.into(),
    }
}
