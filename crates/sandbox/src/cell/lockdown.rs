//! What the first process of a cell gives up before it starts the program, in an order where each step is still possible.

use std::os::fd::AsFd;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, Scope,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};

use super::filter::Filters;
use super::root::{Failure, Step as _};
use super::spec::{Layers, Limits, Shape};

/// The newest level of Landlock that is asked for; older kernels give what they have, and it is reported.
pub(super) const NEWEST: ABI = ABI::V7;

/// Puts everything in force. Returns the level of Landlock, 0 where it is switched off.
pub(super) fn lock_down(
    layers: Layers,
    shape: &Shape,
    limit_each: bool,
    filters: Result<Filters, String>,
) -> Result<u32, Failure> {
    if layers.rlimits {
        set_limits(&shape.limits, limit_each)?;
    }
    if layers.capabilities {
        drop_capabilities()?;
    }
    set_no_new_privs(true).step("no new privileges")?;
    let abi = if layers.landlock { landlock(&shape.writable)? } else { 0 };
    if layers.seccomp {
        let step = "the filter of system calls";
        let Filters { usual, no_set_id, alone: _, alone_as_owner: _, kernel: _ } = filters.step(step)?;
        let filter = if shape.writes_through() { no_set_id } else { usual };
        filter.apply().step(step)?;
    }
    Ok(abi)
}

pub(super) fn set_limits(limits: &Limits, limit_each: bool) -> Result<(), Failure> {
    let Limits {
        wall_ms: _,
        cpu_s,
        memory_bytes,
        processes,
        file_bytes,
        descriptors,
        output_bytes: _,
        total: _,
    } = *limits;
    // Where all processes are limited together, a program may reserve addresses as it likes, as compilers to machine code do.
    let memory = limit_each.then_some((Resource::As, memory_bytes));
    let others = [
        (Resource::Core, 0),
        (Resource::Cpu, cpu_s),
        (Resource::Fsize, file_bytes),
        (Resource::Memlock, 1 << 20),
        (Resource::Msgqueue, 819_200),
        (Resource::Nofile, descriptors),
        // Counted for each user namespace, so it is this cell's alone.
        (Resource::Nproc, processes),
        (Resource::Sigpending, 1024),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
    ];
    for (resource, most) in memory.into_iter().chain(others) {
        // Where the host allows less already, it stays with that.
        let most = Some(getrlimit(resource).maximum.map_or(most, |less| less.min(most)));
        setrlimit(resource, Rlimit { current: most, maximum: most })
            .step(format_args!("the limit {resource:?}"))?;
    }
    Ok(())
}

fn drop_capabilities() -> Result<(), Failure> {
    let step = "dropping capabilities";
    // Nothing that is executed from here on is given any, whoever runs it.
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).step(step)?;
    for number in 0..64 {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // The kernel has no more of them.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error).step(step),
        }
    }
    hold_none()
}

/// Gives up the capabilities that there are.
pub(super) fn hold_none() -> Result<(), Failure> {
    let step = "dropping capabilities";
    clear_ambient_capability_set().step(step)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).step(step)
}

/// Everything in the root can be read and run; only what is named can be written. Ports are left to the cell's own network, which has
/// nothing in it but the cell.
fn landlock(writable: &[String]) -> Result<u32, Failure> {
    let root = PathFd::new("/").step(LANDLOCK)?;
    Rules::none()?
        .and(root, AccessFs::from_read(NEWEST))?
        .and_writable(writable)?
        .and_devices()?
        .put_in_force()
}

/// The step at which Landlock fails.
pub(super) const LANDLOCK: &str = "Landlock";

/// What Landlock lets through, in the making. No process outside can be signalled, and no abstract socket outside be reached.
pub(super) struct Rules(RulesetCreated);

impl Rules {
    /// Lets nothing through.
    pub(super) fn none() -> Result<Self, Failure> {
        let rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))
            .step(LANDLOCK)?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)
            .step(LANDLOCK)?
            .create()
            .step(LANDLOCK)?;
        Ok(Self(rules))
    }

    /// Lets this be done with a file, or a folder and what is in it.
    pub(super) fn and(self, what: impl AsFd, access: impl Into<BitFlags<AccessFs>>) -> Result<Self, Failure> {
        self.0.add_rule(PathBeneath::new(what, access)).map(Self).step(LANDLOCK)
    }

    /// Lets everything be done in these folders.
    pub(super) fn and_writable(mut self, folders: &[String]) -> Result<Self, Failure> {
        for path in folders {
            let folder = PathFd::new(path).step(format_args!("{LANDLOCK}, `{path}`"))?;
            self = self.and(folder, AccessFs::from_all(NEWEST))?;
        }
        Ok(self)
    }

    /// Lets devices be read and written, which are no files that a rule for folders covers.
    pub(super) fn and_devices(mut self) -> Result<Self, Failure> {
        for name in ["full", "null", "random", "urandom", "zero"] {
            let node = PathFd::new(format!("/dev/{name}")).step(LANDLOCK)?;
            self = self.and(node, AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev)?;
        }
        Ok(self)
    }

    /// Returns the level of Landlock.
    pub(super) fn put_in_force(self) -> Result<u32, Failure> {
        match self.0.restrict_self().step(LANDLOCK)?.landlock {
            LandlockStatus::Available { effective_abi, .. } => Ok(effective_abi as u32),
            LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => {
                Err("this kernel does not have it, or has it switched off").step(LANDLOCK)
            }
        }
    }
}
