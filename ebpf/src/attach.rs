//! Attaching a loaded program to an interface, and what that may fail with.

use aya::programs::links::FdLink;
use aya::programs::tc::{self, NlOptions, TcAttachOptions};
use aya::programs::xdp::XdpLink;
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, TcError, Xdp, XdpError, XdpMode,
};
use aya::sys::SyscallError;

use crate::hook::Hook;
use crate::interface::{Interface, InterfaceError};
use crate::load::{LoadError, chain};
use crate::support::Support;

/// A program at work on an interface; dropped, it is gone.
///
/// It is a link of the kernel's (`BPF_LINK`) where the hook has one, so it ends with the process whatever ends that.
#[derive(Debug)]
pub struct Attachment {
    interface: String,
    index: u32,
    hook: Hook,
    link: Link,
}

#[derive(Debug)]
enum Link {
    /// A descriptor is the attachment, in all kernels that load the program (links for XDP came in 5.9). One that
    /// refuses it is asked by netlink, and would refuse that too.
    Xdp { _link: XdpLink },
    /// Likewise.
    Kernel { _link: FdLink },
    /// A filter that somebody must take away.
    Filter { _link: tc::SchedClassifierLink },
}

/// Why a program is not at work on an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The interface is missing or cannot be read.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The program is not in the kernel.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Another XDP program has the place (`EBUSY`, `EEXIST`).
    #[error(
        "another program is attached to `{interface}` at {hook}: `ip link show {interface}` names it; detach it, or set another hook"
    )]
    Busy {
        /// The interface.
        interface: String,
        /// The hook asked for.
        hook: Hook,
    },
    /// The driver has no such hook (`EOPNOTSUPP`).
    #[error("the driver of `{interface}` has no {hook}: set the hook to tcx or clsact")]
    NoSuchHook {
        /// The interface.
        interface: String,
        /// The hook asked for.
        hook: Hook,
    },
    /// The interface begins frames with something the hook's program cannot read.
    #[error(
        "`{interface}` has no Ethernet headers, which {hook} needs: set the hook to tcx or clsact"
    )]
    NeedsEthernet {
        /// The interface.
        interface: String,
        /// The hook asked for.
        hook: Hook,
    },
    /// No privilege (`EPERM`), or nothing that loads programs.
    #[error("attaching to `{interface}` at {hook} was refused: {why}")]
    NotPermitted {
        /// The interface.
        interface: String,
        /// The hook asked for.
        hook: Hook,
        /// What is missing, with the fix.
        why: String,
    },
    /// This kernel is too old for the hook.
    #[error("{why}: set another hook for `{interface}`")]
    TooOld {
        /// The interface.
        interface: String,
        /// Since when there is the hook.
        why: String,
    },
    /// Anything else, such as an MTU that the driver cannot give XDP (`ERANGE`, `EINVAL`).
    #[error(
        "attaching to `{interface}` (MTU {mtu}) at {hook} failed: {cause}; set the hook to tcx or clsact"
    )]
    Kernel {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// The hook asked for.
        hook: Hook,
        /// The kernel's answer.
        cause: String,
    },
}

impl Attachment {
    /// The interface's name at the time.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The interface's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Where the program is.
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// Whether the kernel takes it away when the process dies.
    pub fn dies_with_the_process(&self) -> bool {
        match self.link {
            Link::Xdp { .. } | Link::Kernel { .. } => true,
            Link::Filter { .. } => false,
        }
    }

    /// Takes the program off the interface. Dropping does the same.
    pub fn detach(self) {
        drop(self);
    }
}

/// Whether this process may attach at a hook and the kernel has it.
pub(crate) fn check(interface: &Interface, hook: Hook) -> Result<(), AttachError> {
    let support = Support::probe();
    let interface = interface.name.clone();
    if let Some(why) = support.refusal() {
        return Err(AttachError::NotPermitted {
            interface,
            hook,
            why,
        });
    }
    let has = support.has(hook);
    has.map_err(|why| AttachError::TooOld { interface, why })
}

/// Attaches an XDP program, which must be loaded.
pub(crate) fn xdp(
    program: &mut Xdp,
    interface: &Interface,
    hook: Hook,
) -> Result<Attachment, AttachError> {
    let mode = match hook {
        Hook::XdpGeneric => XdpMode::Skb,
        Hook::XdpNative | Hook::Tcx | Hook::Clsact => XdpMode::Driver,
    };
    let failed = |error| sort(error, interface, hook);
    let id = program
        .attach_to_if_index(interface.index, mode)
        .map_err(failed)?;
    let link = program.take_link(id).map_err(failed)?;
    Ok(Attachment {
        interface: interface.name.clone(),
        index: interface.index,
        hook,
        link: Link::Xdp { _link: link },
    })
}

/// Attaches a traffic control program, which must be loaded and has `name` in its object.
pub(crate) fn traffic_control(
    program: &mut SchedClassifier,
    name: &str,
    interface: &Interface,
    hook: Hook,
    direction: TcAttachType,
) -> Result<Attachment, AttachError> {
    let failed = |error| sort(error, interface, hook);
    let link = match hook {
        Hook::Clsact => {
            prepare_clsact(name, interface, hook, direction)?;
            let options = TcAttachOptions::Netlink(NlOptions::default());
            let id = program
                .attach_with_options(&interface.name, direction, options)
                .map_err(failed)?;
            Link::Filter {
                _link: program.take_link(id).map_err(failed)?,
            }
        }
        Hook::Tcx | Hook::XdpNative | Hook::XdpGeneric => {
            // First of all: what it drops costs nobody else anything.
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program
                .attach_with_options(&interface.name, direction, options)
                .map_err(failed)?;
            let link = program.take_link(id).map_err(failed)?;
            let link = FdLink::try_from(link).map_err(|error| AttachError::Kernel {
                interface: interface.name.clone(),
                mtu: interface.mtu,
                hook,
                cause: chain(&error),
            })?;
            Link::Kernel { _link: link }
        }
    };
    Ok(Attachment {
        interface: interface.name.clone(),
        index: interface.index,
        hook,
        link,
    })
}

/// Adds the queueing discipline where it is missing, and takes away what a killed process left.
fn prepare_clsact(
    name: &str,
    interface: &Interface,
    hook: Hook,
    direction: TcAttachType,
) -> Result<(), AttachError> {
    match tc::qdisc_add_clsact(&interface.name) {
        Ok(()) => {}
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(sort(error.into(), interface, hook)),
    }
    // That there is none is the usual case.
    let _ = tc::qdisc_detach_program(&interface.name, direction, name);
    Ok(())
}

/// Sorts the kernel's answer by what helps.
fn sort(error: ProgramError, interface: &Interface, hook: Hook) -> AttachError {
    let name = interface.name.clone();
    let errno = match &error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(error))
        | ProgramError::TcError(TcError::NetlinkError(error))
        | ProgramError::NetlinkError(error) => error.raw_os_error(),
        ProgramError::TcError(TcError::IoError(error)) | ProgramError::IOError(error) => {
            error.raw_os_error()
        }
        _ => None,
    };
    match errno {
        Some(libc::EBUSY | libc::EEXIST) => AttachError::Busy {
            interface: name,
            hook,
        },
        Some(libc::EOPNOTSUPP) => AttachError::NoSuchHook {
            interface: name,
            hook,
        },
        Some(libc::ENODEV) => AttachError::Interface(InterfaceError::Missing { name }),
        Some(libc::EPERM | libc::EACCES) => AttachError::NotPermitted {
            interface: name,
            hook,
            why: Support::probe().refusal().unwrap_or_else(|| chain(&error)),
        },
        _ => AttachError::Kernel {
            interface: name,
            mtu: interface.mtu,
            hook,
            cause: chain(&error),
        },
    }
}
