//! Programs and maps: loaded, attached to the daemon's cgroup, pinned, inspected, removed.
//!
//! ```text
//! bpf_dir/SESSIONS, BINDINGS, ..     the maps, adopted by the next daemon
//! bpf_dir/links/{ingress,egress,track}  the attachments; they outlive every process
//! ```
//!
//! A starting daemon always attaches its own programs, beside those of the one before, and only
//! then lets the old ones go: there is no moment without enforcement.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::MapError,
    pin::PinError,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError, SockOps,
        links::{FdLink, LinkError, PinnedLink},
    },
};
use enforcer_abi::{ABI_VERSION, map_name};

use super::{cgroup::DaemonCgroup, maps::Maps};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/enforcer.bpf.o"));

/// The programs, by the names of their links.
pub const PROGRAMS: [&str; 3] = ["ingress", "egress", "track"];

/// The pinned maps.
pub const MAPS: [&str; 8] = [
    map_name::SESSIONS,
    map_name::BINDINGS,
    map_name::SOCKET,
    map_name::CONNECTIONS,
    map_name::ACTIVITY,
    map_name::STATS,
    map_name::CONTROL,
    map_name::EVENTS,
];

/// Loading, attaching or pinning failed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The binary was built without the eBPF object.
    #[error("this binary was built without its eBPF programs: build it with `cargo xtask build`")]
    NoObject,
    /// Pinned maps of another version.
    #[error(
        "the maps in {path} have layout {found}, this daemon has {ABI_VERSION}: end the sessions with `enforcer unload`, then start it again"
    )]
    OtherVersion {
        /// Folder of the pins.
        path: PathBuf,
        /// Version found.
        found: u32,
    },
    /// The kernel refused the object.
    #[error("the kernel did not take the eBPF object")]
    Load(#[from] EbpfError),
    /// The kernel refused a program.
    #[error("the kernel did not take a program")]
    Program(#[from] ProgramError),
    /// A link is not what it should be.
    #[error("a link cannot be used")]
    Link(#[from] LinkError),
    /// Pinning failed.
    #[error("cannot pin")]
    Pin(#[from] PinError),
    /// A map cannot be used.
    #[error("a map cannot be used")]
    Map(#[from] MapError),
    /// A file operation failed.
    #[error("cannot use {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Sizes of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sessions.
    pub sessions: u32,
    /// Connections.
    pub connections: u32,
}

/// Loads the programs over the pinned maps (made if they aren't there) and attaches them to the
/// cgroup. The returned object only carries the programs' log; the pins hold everything else.
pub fn attach(bpf_dir: &Path, cgroup: &DaemonCgroup, sizes: Sizes) -> Result<Ebpf, AttachError> {
    if OBJECT.is_empty() {
        return Err(AttachError::NoObject);
    }
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| AttachError::Io { path, source }
    };
    let links = bpf_dir.join("links");
    fs::create_dir_all(&links).map_err(at(&links))?;
    check_version(bpf_dir)?;

    let mut loader = EbpfLoader::new();
    for name in MAPS {
        loader.map_pin_path(name, bpf_dir.join(name));
    }
    loader
        .map_max_entries(map_name::SESSIONS, sizes.sessions)
        .map_max_entries(map_name::ACTIVITY, sizes.sessions)
        .map_max_entries(map_name::CONNECTIONS, sizes.connections)
        .map_max_entries(map_name::BINDINGS, sizes.connections);
    let mut object = loader.load(OBJECT)?;
    let folder = fs::File::open(cgroup.path()).map_err(at(cgroup.path()))?;

    for name in PROGRAMS {
        let link = attach_program(&mut object, name, &folder)?;
        // Pinned beside the old link and moved over it, which lets the old one go.
        let fresh = links.join(format!("{name}-new"));
        let _ = fs::remove_file(&fresh);
        link.pin(&fresh)?;
        fs::rename(&fresh, links.join(name)).map_err(at(&fresh))?;
    }
    Ok(object)
}

fn attach_program(object: &mut Ebpf, name: &str, cgroup: &fs::File) -> Result<FdLink, AttachError> {
    let program = object.program_mut(name).ok_or(AttachError::NoObject)?;
    // No flag: a link always lets others attach beside it.
    let mode = CgroupAttachMode::Single;
    Ok(match name {
        "track" => {
            let program: &mut SockOps = program.try_into()?;
            program.load()?;
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into()?
        }
        _ => {
            let program: &mut CgroupSkb = program.try_into()?;
            program.load()?;
            let direction = if name == "ingress" {
                CgroupSkbAttachType::Ingress
            } else {
                CgroupSkbAttachType::Egress
            };
            let id = program.attach(cgroup, direction, mode)?;
            program.take_link(id)?.try_into()?
        }
    })
}

fn check_version(bpf_dir: &Path) -> Result<(), AttachError> {
    if !bpf_dir.join(map_name::CONTROL).exists() {
        return Ok(());
    }
    let incomplete = || AttachError::OtherVersion {
        path: bpf_dir.to_owned(),
        found: 0,
    };
    match Maps::open(bpf_dir) {
        Ok(maps) => match maps.control().abi_version {
            0 | ABI_VERSION => Ok(()),
            found => Err(AttachError::OtherVersion {
                path: bpf_dir.to_owned(),
                found,
            }),
        },
        // A pin that is missing is made anew; one of another layout can't be opened.
        Err(_) if MAPS.iter().any(|name| !bpf_dir.join(name).exists()) => Ok(()),
        Err(_) => Err(incomplete()),
    }
}

/// What is pinned and attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Each program, and what is wrong with it.
    pub programs: Vec<(&'static str, Result<(), Unattached>)>,
    /// Each map, and whether it is pinned.
    pub maps: Vec<(&'static str, bool)>,
}

/// Why a program does not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unattached {
    /// Its link is not pinned: it ends with the process that holds it.
    #[error("its link is not pinned")]
    NotPinned,
    /// Its link is there, but detached.
    #[error("its link is detached")]
    Detached,
    /// It is attached elsewhere.
    #[error("it is attached to another cgroup (id {0})")]
    Elsewhere(u64),
    /// Its link can't be read.
    #[error("its link cannot be read: {0}")]
    Unreadable(String),
}

/// Looks at pins and links; works without a daemon.
pub fn inspect(bpf_dir: &Path, cgroup: &DaemonCgroup) -> Inspection {
    Inspection {
        programs: PROGRAMS
            .map(|name| {
                (
                    name,
                    inspect_link(&bpf_dir.join("links").join(name), cgroup),
                )
            })
            .to_vec(),
        maps: MAPS
            .map(|name| (name, bpf_dir.join(name).exists()))
            .to_vec(),
    }
}

fn inspect_link(path: &Path, cgroup: &DaemonCgroup) -> Result<(), Unattached> {
    if !path.exists() {
        return Err(Unattached::NotPinned);
    }
    let attached =
        attached_cgroup(path).map_err(|error| Unattached::Unreadable(error.to_string()))?;
    match attached {
        None | Some(0) => Err(Unattached::Detached),
        found if found == cgroup.id() => Ok(()),
        Some(found) => Err(Unattached::Elsewhere(found)),
    }
}

/// The cgroup that the pinned programs are attached to, if any is.
pub fn attached_to(bpf_dir: &Path) -> Option<DaemonCgroup> {
    PROGRAMS.iter().find_map(|name| {
        let attached = attached_cgroup(&bpf_dir.join("links").join(name));
        DaemonCgroup::by_id(attached.ok()??)
    })
}

/// The cgroup id of a pinned link, from this process's fdinfo: 0 once detached.
fn attached_cgroup(path: &Path) -> Result<Option<u64>, LinkError> {
    // Open until the end: fdinfo only lists what is.
    let link = FdLink::from(PinnedLink::from_pin(path)?);
    let link_id = link.info()?.id();
    let field = |text: &str, name: &str| {
        text.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(':')?
                .trim()
                .parse()
                .ok()
        })
    };
    let descriptors = fs::read_dir("/proc/self/fdinfo").into_iter().flatten();
    Ok(descriptors.flatten().find_map(|entry| {
        let text = fs::read_to_string(entry.path()).ok()?;
        (field(&text, "link_id") == Some(u64::from(link_id))).then(|| field(&text, "cgroup_id"))?
    }))
}

/// Detaches the programs and removes all pins.
pub fn remove(bpf_dir: &Path) -> Result<(), AttachError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| AttachError::Io { path, source }
    };
    let links = bpf_dir.join("links");
    for folder in [links.as_path(), bpf_dir] {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at(folder)(error)),
        };
        for entry in entries.flatten().filter(|entry| !entry.path().is_dir()) {
            fs::remove_file(entry.path()).map_err(at(&entry.path()))?;
        }
        fs::remove_dir(folder).map_err(at(folder))?;
    }
    Ok(())
}
