//! What the first process of a cell gives up before it starts the program, in an order where each step is still possible.

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, Scope,
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
        let Filters { usual, no_set_id, alone: _, alone_as_owner: _ } = filters.step(step)?;
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
    clear_ambient_capability_set().step(step)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).step(step)
}

/// Everything in the root can be read and run; only what is named can be written. No process outside can be signalled, and no
/// abstract socket outside be reached. Ports are left to the cell's own network, which has nothing in it but the cell.
fn landlock(writable: &[String]) -> Result<u32, Failure> {
    let step = "Landlock";
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::from_read(NEWEST);
    // Devices are written to, and are no files that a rule for folders covers.
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .step(step)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)
        .step(step)?
        .create()
        .step(step)?
        .add_rule(PathBeneath::new(PathFd::new("/").step(step)?, read))
        .step(step)?;
    for path in writable {
        let folder = PathFd::new(path).step(format_args!("{step}, `{path}`"))?;
        rules = rules.add_rule(PathBeneath::new(folder, all)).step(step)?;
    }
    for name in ["full", "null", "random", "urandom", "zero"] {
        let node = PathFd::new(format!("/dev/{name}")).step(step)?;
        rules = rules.add_rule(PathBeneath::new(node, device)).step(step)?;
    }
    let status = rules.restrict_self().step(step)?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => Ok(effective_abi as u32),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => {
            Err("this kernel does not have it, or has it switched off").step(step)
        }
    }
}
