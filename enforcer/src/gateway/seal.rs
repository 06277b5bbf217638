//! Giving up every right that serving does not need, and proof of it. After [`seal`] a captured
//! gateway is a process of an ordinary user that can neither run programs nor reach the kernel's
//! maps.

use std::{fs, io, path::Path};

use nix::unistd::{
    Gid, Uid, User, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid,
};
use rustix::{
    fs::{MemfdFlags, Mode, memfd_create},
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask},
    thread::{
        CapabilitySet, CapabilitySets, SecureComputingMode, capabilities,
        capability_is_in_bounding_set, clear_ambient_capability_set, no_new_privs,
        remove_capability_from_bounding_set, secure_computing_mode, set_capabilities,
        set_no_new_privs,
    },
};

use super::seccomp;

/// Why the process is not sealed. It must not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("user `{0}` does not exist")]
    UnknownUser(String),
    #[error("user `{0}` is root: the gateway needs a user of its own")]
    Root(String),
    #[error("there are threads already")]
    Threads,
    #[error("cannot {0}")]
    Step(&'static str, #[source] io::Error),
    #[error("the system call filter")]
    Filter(#[from] seccomp::FilterError),
    #[error("sealed, but {0}")]
    Unsealed(&'static str),
}

/// Becomes `user` and gives up the rest. The process must have one thread: identity and filter
/// are those of a thread, and later threads inherit them.
pub(crate) fn seal(user: &str) -> Result<(), SealError> {
    if fs::read_dir("/proc/self/task").map_or(0, Iterator::count) != 1 {
        return Err(SealError::Threads);
    }
    let (uid, gid) = lookup(user)?;
    drop_bounding_set().map_err(|error| SealError::Step("drop capabilities", error))?;
    drop_identity(uid, gid).map_err(|error| SealError::Step("change the user", error))?;
    drop_rights().map_err(|error| SealError::Step("give up rights", error))?;
    refuse_unexpected_descriptors()?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| SealError::Step("become undumpable", error.into()))?;
    seccomp::install()?;
    verify(uid, gid)
}

fn lookup(name: &str) -> Result<(Uid, Gid), SealError> {
    let user = User::from_name(name)
        .map_err(|error| SealError::Step("look the user up", error.into()))?
        .ok_or_else(|| SealError::UnknownUser(name.to_owned()))?;
    if user.uid.is_root() || user.gid.as_raw() == 0 {
        return Err(SealError::Root(name.to_owned()));
    }
    Ok((user.uid, user.gid))
}

/// Every capability that the kernel knows, also those that this program does not.
fn bounding_set() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS)
        .map(|bit| CapabilitySet::from_bits_retain(1 << bit))
        .take_while(|capability| capability_is_in_bounding_set(*capability).is_ok())
}

fn drop_bounding_set() -> io::Result<()> {
    for capability in bounding_set() {
        remove_capability_from_bounding_set(capability)?;
    }
    Ok(())
}

fn drop_identity(uid: Uid, gid: Gid) -> io::Result<()> {
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

fn drop_rights() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none)?;
    set_no_new_privs(true)?;
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, no_core)?;
    umask(Mode::RWXG | Mode::RWXO);
    Ok(())
}

/// A map or program that came along by mistake would make the rest pointless.
fn refuse_unexpected_descriptors() -> Result<(), SealError> {
    let step = |error| SealError::Step("list open files", error);
    for entry in fs::read_dir("/proc/self/fd").map_err(step)? {
        let link = fs::read_link(entry.map_err(step)?.path());
        if link.is_ok_and(|target| is_bpf(&target)) {
            return Err(SealError::Unsealed("it has a BPF descriptor"));
        }
    }
    Ok(())
}

/// Maps, programs and links have no file; a file may have any name.
fn is_bpf(target: &Path) -> bool {
    let target = target.to_string_lossy();
    target
        .strip_prefix("anon_inode:")
        .is_some_and(|kind| kind.contains("bpf"))
}

fn verify(uid: Uid, gid: Gid) -> Result<(), SealError> {
    let holds = |holds: bool, what| {
        if holds {
            Ok(())
        } else {
            Err(SealError::Unsealed(what))
        }
    };
    let uids = getresuid().map(|ids| [ids.real, ids.effective, ids.saved]);
    holds(uids == Ok([uid; 3]), "it has another user")?;
    let gids = getresgid().map(|ids| [ids.real, ids.effective, ids.saved]);
    holds(gids == Ok([gid; 3]), "it has another group")?;
    holds(getgroups() == Ok(Vec::new()), "it has other groups")?;
    let sets = capabilities(None).map(|sets| sets.effective | sets.permitted | sets.inheritable);
    holds(sets == Ok(CapabilitySet::empty()), "it has capabilities")?;
    holds(
        bounding_set().all(|capability| capability_is_in_bounding_set(capability) == Ok(false)),
        "capabilities are within its bounds",
    )?;
    holds(no_new_privs() == Ok(true), "it may gain privileges")?;
    holds(
        secure_computing_mode() == Ok(SecureComputingMode::Filter),
        "there is no system call filter",
    )?;
    // Anybody may do this one, unless a filter says no.
    let memfd = memfd_create(c"unsealed", MemfdFlags::CLOEXEC);
    holds(
        matches!(memfd, Err(Errno::PERM)),
        "the filter lets unlisted system calls pass",
    )?;
    let bpf = aya::programs::loaded_programs().next();
    holds(matches!(bpf, Some(Err(_))), "bpf(2) is not denied")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_bpf_is_told_by_its_kind_and_not_by_its_name() {
        for kind in [
            "anon_inode:bpf-map",
            "anon_inode:bpf-prog",
            "anon_inode:bpf_link",
        ] {
            assert!(is_bpf(Path::new(kind)), "{kind}");
        }
        for other in ["/var/log/bpf.log", "anon_inode:[eventpoll]", "socket:[7]"] {
            assert!(!is_bpf(Path::new(other)), "{other}");
        }
    }
}
