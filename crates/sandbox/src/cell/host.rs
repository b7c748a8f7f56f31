//! What a host has for cells, found out by doing it, and what to type where something is missing.

use std::fs;
use std::os::fd::AsRawFd as _;

use super::tier::Tier;

/// What bears on why a host makes no cells of a kind. Only what was tried says that it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Settings of the kernel, by name, as far as there are any.
    settings: Vec<(&'static str, String)>,
    /// Whether system calls of this program are filtered, as in a container.
    filtered: bool,
    /// The kernel's security modules, if they can be read.
    modules: Option<String>,
}

/// Settings that can bar namespaces.
const SETTINGS: [&str; 3] = [
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.unprivileged_userns_clone",
    "user.max_user_namespaces",
];

impl Facts {
    /// Those of this host.
    #[must_use]
    pub fn read() -> Self {
        let setting = |name: &'static str| {
            let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
            Some((name, text.trim().to_owned()))
        };
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            settings: SETTINGS.into_iter().filter_map(setting).collect(),
            filtered: status.lines().any(|line| line == "Seccomp:\t2"),
            modules: fs::read_to_string("/sys/kernel/security/lsm").ok(),
        }
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.settings.iter().any(|(known, has)| *known == name && has == value)
    }

    /// What to type, where a cell of a tier failed for this reason.
    #[must_use]
    pub fn advice(&self, tier: Tier, why: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |text: &str| lines.push(text.to_owned());
        match tier {
            Tier::Microvm => line("the strongest cells that this version makes are of the tier `gvisor`"),
            Tier::Gvisor if why.contains("no `runsc`") || why.contains("unknown platform") => {
                line(
                    "install gVisor, of 2023 or later: `apt-get install runsc`, on Debian 12 `apt-get install -t bookworm-backports runsc`",
                );
            }
            Tier::Gvisor => {
                line("such a cell lies in one like those of the tier `native`: what bars these bars it, too");
                line(
                    "in a container calls are filtered and `/proc` is masked: `docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined …`",
                );
            }
            Tier::LandlockOnly | Tier::Native if why.contains("Landlock") => {
                line("it takes Linux 5.13, and 6.12 for `landlock-only`; `uname -r` shows which this is");
                if self.modules.as_deref().is_some_and(|modules| !modules.contains("landlock")) {
                    line("start the kernel with `landlock` in its list: `lsm=landlock,…`");
                }
            }
            Tier::LandlockOnly | Tier::Native if why.contains("filters of system calls") => {
                line("it takes a kernel with CONFIG_SECCOMP_FILTER");
            }
            Tier::LandlockOnly => {}
            Tier::Native => {
                if self.is("user.max_user_namespaces", "0") || why.contains("No space left") {
                    line("`sysctl -w user.max_user_namespaces=15000`");
                }
                if self.is("kernel.unprivileged_userns_clone", "0") {
                    line("`sysctl -w kernel.unprivileged_userns_clone=1`");
                }
                if self.is("kernel.apparmor_restrict_unprivileged_userns", "1") {
                    line(
                        "allow this program to make namespaces by a profile of AppArmor: docs/cells.md has it, or, for all programs, `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
                    );
                }
                if why.contains("`/proc`") {
                    line(
                        "in a container `/proc` is masked: `docker run --security-opt systempaths=unconfined …`",
                    );
                }
                if self.filtered {
                    line(
                        "in a container calls are filtered: `docker run --security-opt seccomp=unconfined …`, or a profile of seccomp that allows `clone3`, `mount`, `pivot_root` and `unshare`",
                    );
                }
                if lines.is_empty() {
                    lines.push("this may be a container or a chroot that bars namespaces of users; run the gate outside of it".to_owned());
                }
                lines.push("profiles for which less will do can say `tier = \"landlock-only\"`".to_owned());
            }
        }
        lines
    }
}

/// Whether virtual machines could be run, in words.
pub(super) fn machines() -> String {
    let kvm = match fs::File::options().read(true).write(true).open("/dev/kvm") {
        Ok(kvm) => kvm,
        Err(error) => return format!("`/dev/kvm` cannot be opened: {error}"),
    };
    match version(&kvm) {
        KVM_VERSION => {}
        other => return format!("`/dev/kvm` has version {other} of its interface, and not {KVM_VERSION}"),
    }
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processor.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    if cfg!(target_arch = "x86_64") && !flags.split(' ').any(|flag| flag == "vmx" || flag == "svm") {
        return "there is KVM, but the processor shows neither vmx nor svm: it is PVM, on which ordinary guest kernels do not boot".to_owned();
    }
    "there is KVM, and this program makes no cells with it".to_owned()
}

/// The only version there has been since 2007.
const KVM_VERSION: i32 = 12;

/// `KVM_GET_API_VERSION`.
const GET_VERSION: u32 = 0xae00;

#[expect(unsafe_code, reason = "there is no safe way to ask a device")]
fn version(kvm: &fs::File) -> i32 {
    // SAFETY: this request takes no argument, and touches no memory of ours; on a device that is no KVM it fails.
    // JUSTIFICATION: that it can be opened does not say that it answers.
    unsafe { libc::ioctl(kvm.as_raw_fd(), GET_VERSION as _, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_what_to_type() {
        let with = |settings: &[(&'static str, &str)]| Facts {
            settings: settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
            ..Facts::default()
        };
        let filtered = Facts { filtered: true, ..Facts::default() };
        let modules = Facts { modules: Some("capability,yama".to_owned()), ..Facts::default() };
        let none = "its namespaces: Operation not permitted (os error 1)";
        for (facts, tier, why, want) in [
            (
                &with(&[("user.max_user_namespaces", "0")]),
                Tier::Native,
                none,
                "sysctl -w user.max_user_namespaces",
            ),
            (
                &Facts::default(),
                Tier::Native,
                "its namespaces: No space left on device",
                "user.max_user_namespaces",
            ),
            (&with(&[("kernel.unprivileged_userns_clone", "0")]), Tier::Native, none, "userns_clone=1"),
            (
                &with(&[("kernel.apparmor_restrict_unprivileged_userns", "1")]),
                Tier::Native,
                "own mounts: Permission denied",
                "a profile of AppArmor",
            ),
            (&filtered, Tier::Native, none, "seccomp=unconfined"),
            (&Facts::default(), Tier::Native, "`/proc`: Operation not permitted", "systempaths=unconfined"),
            (&Facts::default(), Tier::Native, none, "a container or a chroot"),
            (&modules, Tier::LandlockOnly, "Landlock: this kernel does not have it", "lsm=landlock"),
            (&Facts::default(), Tier::LandlockOnly, "Landlock: level 3", "Linux 5.13, and 6.12"),
            (&Facts::default(), Tier::Gvisor, "there is no `runsc`, which", "apt-get install runsc"),
            (&Facts::default(), Tier::Gvisor, "starting: unknown platform: systrap", "bookworm-backports"),
            (
                &Facts::default(),
                Tier::Gvisor,
                "the cell failed at its namespaces: refused",
                "what bars these",
            ),
            (&Facts::default(), Tier::Microvm, "no KVM", "the strongest cells that this version makes"),
        ] {
            let lines = facts.advice(tier, why).join("\n");
            assert!(lines.contains(want), "{why}: {lines}");
        }
        // Settings that bar nothing are not blamed.
        let fine = with(&[("user.max_user_namespaces", "9"), ("kernel.unprivileged_userns_clone", "1")]);
        assert!(!fine.advice(Tier::Native, none).join("\n").contains("sysctl"));
    }

    #[test]
    fn machines_are_told_of_in_words() {
        assert!(machines().contains("KVM") || machines().contains("/dev/kvm"));
    }
}
