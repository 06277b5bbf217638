//! What the machine must offer before anything is built or started: asked all at once, and each
//! lack is said with its mend.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use aya::{maps::MapType, sys::is_map_supported};

const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Bits of the capability sets, as in capabilities(7).
const CAPABILITIES: [(&str, u32); 4] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

const REFUSED: &str = "bpf(2) is refused although root has the capabilities: a container's seccomp \
    filter, a security module or a user namespace forbids it; run the container with --privileged, or \
    use a VM";

/// Fails unless this machine can run enforcer.
pub(crate) fn check() -> Result<()> {
    let read = |file| fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
    let problems = Machine {
        status: &read("/proc/self/status")?,
        release: &read("/proc/sys/kernel/osrelease")?,
        mounts: &read("/proc/self/mountinfo")?,
        filesystems: &read("/proc/filesystems")?,
    }
    .problems();
    if !problems.is_empty() {
        bail!(problems.join("\n"));
    }
    // A map that is made and let go. What forbids it shows in none of those files.
    let tried = is_map_supported(MapType::Hash).context(REFUSED)?;
    ensure!(tried, REFUSED);
    Ok(())
}

/// What the kernel says in the files that are named beside each field.
struct Machine<'a> {
    /// `/proc/self/status`
    status: &'a str,
    /// `/proc/sys/kernel/osrelease`
    release: &'a str,
    /// `/proc/self/mountinfo`
    mounts: &'a str,
    /// `/proc/filesystems`
    filesystems: &'a str,
}

impl Machine<'_> {
    fn problems(&self) -> Vec<String> {
        [self.rights(), self.kernel(), self.cgroup(), self.bpffs()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn rights(&self) -> Option<String> {
        let field = |name| self.status.lines().find_map(|line| line.strip_prefix(name));
        let user = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1));
        if user != Some("0") {
            return Some("not root: run it again with `sudo -E env \"PATH=$PATH\"`".into());
        }
        let held = field("CapEff:").and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        let held = held.unwrap_or_default();
        let missing: Vec<_> = CAPABILITIES
            .iter()
            .filter(|(_, bit)| held >> bit & 1 == 0)
            .map(|(name, _)| *name)
            .collect();
        (!missing.is_empty()).then(|| {
            let missing = missing.join(", ");
            format!("root lacks {missing}: run the container with --privileged, or use a VM")
        })
    }

    fn kernel(&self) -> Option<String> {
        let mut numbers = self
            .release
            .split(|c: char| !c.is_ascii_digit())
            .map(str::parse);
        let version = match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
            _ => (0, 0),
        };
        (version < OLDEST_KERNEL).then(|| {
            let (major, minor) = OLDEST_KERNEL;
            let release = self.release.trim();
            format!("Linux {release} is too old: boot Linux {major}.{minor} or newer")
        })
    }

    fn cgroup(&self) -> Option<String> {
        match self.mounted("cgroup2") {
            None => Some(
                "cgroup v2 is not mounted: boot with systemd.unified_cgroup_hierarchy=1, or \
                 `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`"
                    .into(),
            ),
            Some(Mount {
                point,
                read_only: true,
            }) => Some(format!(
                "cgroup v2 is read-only at {point}: run the container with --privileged, or \
                 `mount -o remount,rw {point}`"
            )),
            Some(_) => None,
        }
    }

    fn bpffs(&self) -> Option<String> {
        let known = self
            .filesystems
            .split_whitespace()
            .any(|word| word == "bpf");
        (self.mounted("bpf").is_none() && !known).then(|| {
            "no BPF file system: boot a kernel with CONFIG_BPF_SYSCALL, so that `mount -t bpf bpf \
             /sys/fs/bpf` works"
                .into()
        })
    }

    fn mounted(&self, filesystem: &str) -> Option<Mount<'_>> {
        self.mounts.lines().find_map(|line| {
            let (mount, source) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(4);
            let (point, options) = (fields.next()?, fields.next()?);
            (source.split(' ').next() == Some(filesystem)).then(|| Mount {
                point,
                read_only: options.split(',').any(|option| option == "ro"),
            })
        })
    }
}

struct Mount<'a> {
    point: &'a str,
    read_only: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "\
24 30 0:22 / /proc rw,relatime - proc proc rw
29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate
35 23 0:32 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700
";
    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const ABLE: Machine<'static> = Machine {
        status: "Name:\txtask\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n",
        release: "6.1.0-40-amd64\n",
        mounts: UNIFIED,
        filesystems: "nodev\tsysfs\nnodev\tcgroup2\nnodev\tbpf\n\text4\n",
    };

    #[test]
    fn an_able_machine_has_no_problems() {
        assert_eq!(ABLE.problems(), [""; 0]);
        assert_eq!(
            Machine {
                mounts: HYBRID,
                ..ABLE
            }
            .problems(),
            [""; 0]
        );
        assert_eq!(
            Machine {
                release: "10.0-rc1\n",
                ..ABLE
            }
            .problems(),
            [""; 0]
        );
    }

    #[test]
    fn each_lack_is_one_problem() {
        let legacy = HYBRID.lines().take(2).collect::<Vec<_>>().join("\n");
        let read_only = UNIFIED.replace("cgroup rw,", "cgroup ro,");
        let lacks = [
            (
                Machine {
                    status: "Uid:\t1000\t1000\t1000\t1000\n",
                    ..ABLE
                },
                "not root",
            ),
            (
                Machine {
                    status: "Uid:\t0\t0\t0\t0\nCapEff:\t000000c0ffdfffff\n",
                    ..ABLE
                },
                "root lacks CAP_SYS_ADMIN:",
            ),
            (
                Machine {
                    release: "5.15.0-91-generic\n",
                    ..ABLE
                },
                "Linux 5.15.0-91-generic",
            ),
            (
                Machine {
                    release: "6.0.19\n",
                    ..ABLE
                },
                "Linux 6.0.19",
            ),
            (
                Machine {
                    mounts: &legacy,
                    ..ABLE
                },
                "cgroup v2 is not mounted",
            ),
            (
                Machine {
                    mounts: &read_only,
                    ..ABLE
                },
                "cgroup v2 is read-only at /sys/fs/cgroup:",
            ),
            (
                Machine {
                    mounts: HYBRID,
                    filesystems: "nodev\tsysfs\n",
                    ..ABLE
                },
                "no BPF file",
            ),
        ];
        for (machine, expected) in lacks {
            let problems = machine.problems();
            assert!(
                matches!(&problems[..], [problem] if problem.starts_with(expected)),
                "{expected}: {problems:?}"
            );
        }
    }
}
