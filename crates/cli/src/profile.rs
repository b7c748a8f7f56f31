//! Profiles of cells: from the configuration to the cell, and in plain words.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use toolgate_broker::config::profiles::{OnImage, Per, Profile};
use toolgate_broker::config::{Config, closest};
use toolgate_broker::home::Surroundings;
use toolgate_core::name::ProfileName;
use toolgate_sandbox::cell::{self, host::Facts};
use toolgate_sandbox::image::{Image, Images};

use crate::exec::{self, Makes};
use crate::out::{self, line};
use crate::place::Place;

/// The profile of a name.
pub(crate) fn find<'c>(config: &'c Config, name: &str) -> anyhow::Result<&'c Profile> {
    let found = config.profiles.iter().find(|(known, _)| known.as_str() == name);
    found.map(|(_, profile)| profile).ok_or_else(|| {
        let known: Vec<&str> = config.profiles.keys().map(ProfileName::as_str).collect();
        let hint = match closest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are `{}`; others are written as `[profiles.NAME]`", known.join("`, `")),
        };
        out::hinted(format!("there is no profile `{}`", name.escape_debug()), &hint)
    })
}

/// What a cell is given, with the image and the values that its environment names.
pub(crate) fn resolved(
    surroundings: &Surroundings,
    images: &Images,
    profile: &Profile,
) -> anyhow::Result<cell::Profile> {
    let mut env = Vec::new();
    for (name, value) in &profile.env {
        env.push((name.clone(), surroundings.value(value)?.to_string()));
    }
    let image = profile.image.as_ref().map(|image| base(images, image)).transpose()?;
    Ok(cell::Profile { image, ..cell(profile, env) })
}

/// The image that a profile names, and what is taken of its wishes.
pub(crate) fn base(images: &Images, image: &OnImage) -> anyhow::Result<cell::Base> {
    let OnImage { name, env, cwd } = image;
    images.find(name)?.base(env, *cwd).with_context(|| format!("the image `{name}` cannot be used"))
}

/// What a cell is given, with this environment, on no image.
pub(crate) fn cell(profile: &Profile, env: Vec<(String, String)>) -> cell::Profile {
    let Profile { tier, image: _, per: _, read, exec, write, net, env: _, limits, scratch_bytes } = profile;
    cell::Profile {
        tier: *tier,
        read: read.clone(),
        exec: exec.clone(),
        write: write.clone(),
        env,
        limits: *limits,
        scratch_bytes: *scratch_bytes,
        net: net.iter().cloned().collect(),
        ..cell::Profile::default()
    }
}

/// `toolgate doctor --cell PROFILE`: what such a cell can reach, in plain words.
pub(crate) fn tell(place: &Place, name: &str) -> anyhow::Result<()> {
    let config = place.config()?;
    let profile = find(&config, name)?;
    let makes = exec::makes()?;
    let made = makes.at_least(profile.tier);
    let image =
        profile.image.as_ref().map(|image| place.images().find(&image.name).map(|found| (image, found)));
    let image = image.transpose()?;
    let missing: Vec<_> = [&profile.read, &profile.exec, &profile.write]
        .into_iter()
        .flatten()
        .filter(|path| !path.exists())
        .collect();
    if place.json {
        let limits = &profile.limits;
        out::json(&json!({
            "profile": name,
            "image": image.as_ref().map(|(wished, found)| json!({
                "name": wished.name,
                "id": found.about.id,
                "env": wished.env,
                "cwd": wished.cwd.then_some(&found.about.working_dir),
            })),
            "per": match profile.per {
                Per::Call => "call",
                Per::Session => "session",
            },
            "read": profile.read,
            "exec": profile.exec,
            "write": profile.write,
            "net": profile.net.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "env": profile.env.keys().collect::<Vec<_>>(),
            "limits": {
                "wall_ms": limits.wall_ms,
                "cpu_s": limits.cpu_s,
                "memory_bytes": limits.memory_bytes,
                "memory_is_total": makes.total,
                "processes": limits.processes,
                "file_bytes": limits.file_bytes,
                "descriptors": limits.descriptors,
                "output_bytes": limits.output_bytes,
                "total_is_demanded": limits.total,
                "scratch_bytes": profile.scratch_bytes,
            },
            "tier": profile.tier.name(),
            "runs_in_tier": made.ok().map(|(tier, _)| tier.name()),
            "landlock_abi": made.ok().map(|(_, landlock)| landlock),
            "cannot_be_made": made.err(),
            "missing": missing,
        }))?;
    } else {
        in_words(name, profile, image.as_ref().map(|(_, found)| found), &makes)?;
    }
    for path in &missing {
        out::note(format_args!("`{}` is not there: a cell of this profile cannot be made", path.display()));
    }
    anyhow::ensure!(missing.is_empty(), "{} of what the profile names is not there", missing.len());
    made.map(drop).map_err(|why| {
        out::hinted(
            format!("this machine makes no cells of the tier `{}`: {why}", profile.tier),
            Facts::read().advice(profile.tier, why).join("; "),
        )
    })
}

fn in_words(name: &str, profile: &Profile, image: Option<&Image>, makes: &Makes) -> anyhow::Result<()> {
    let Profile { tier, image: wished, per, read, exec, write, net, env, limits, scratch_bytes } = profile;
    let mib = |bytes: u64| bytes >> 20;
    line(format_args!("a cell of the profile `{name}` can"))?;
    match wished.as_ref().zip(image) {
        None => line("  read and run   the system's programs: /usr, and what they need of /etc")?,
        Some((wished, image)) => line(format_args!(
            "  read and run   the image `{}` (sha256:{}, {}), and none of the system's programs",
            wished.name,
            image.about.short(),
            image.about.platform,
        ))?,
    }
    let each = |what: &str, paths: &[std::path::PathBuf]| -> anyhow::Result<()> {
        paths
            .iter()
            .try_for_each(|path: &std::path::PathBuf| line(format_args!("  {what:<14} {}", shown(path))))
    };
    each("read and run", exec)?;
    each("read", read)?;
    each("write", write)?;
    line(format_args!(
        "  write          /tmp, /var/tmp, /dev/shm and its home, in memory: {} MiB each, gone with the cell",
        mib(*scratch_bytes)
    ))?;
    for destination in net {
        line(format_args!("  connect to     {destination}"))?;
    }
    if net.is_empty() {
        line("  connect to     nothing but itself: no other host, no socket of this one")?;
    }
    let mut names = vec!["PATH", "HOME"];
    names.extend(wished.iter().flat_map(|image| &image.env).chain(env.keys()).map(String::as_str));
    line(format_args!("  see            the variables {}", names.join(", ")))?;
    line(
        "and the folder it is started in, as whoever starts it says. There is nothing else in it: no other file, process, user or secret.",
    )?;
    let total = match (makes.total, limits.total) {
        (true, _) => "together",
        (false, true) => {
            "together, as it demands: no such cell can be made here, where no cgroup can be used"
        }
        (false, false) => "each process alone, as no cgroup can be used here",
    };
    line(format_args!(
        "limits: {} s (a server lasts as long as its session), {} s of processor time a process, {} MiB of memory {total}, {} processes, files of {} MiB, {} open files a process, {} KiB of output a stream",
        limits.wall_ms / 1000,
        limits.cpu_s,
        mib(limits.memory_bytes),
        limits.processes,
        mib(limits.file_bytes),
        limits.descriptors,
        limits.output_bytes >> 10,
    ))?;
    if *per == Per::Call {
        line("a server in it is started for each call, and gone with it")?;
    }
    match makes.at_least(*tier) {
        Ok((made, level)) if made == *tier => line(format_args!("tier: {tier}{}", exec::landlock(level)))?,
        Ok((made, level)) => {
            line(format_args!("tier: at least {tier}; here {made}{}", exec::landlock(level)))?;
        }
        Err(why) => line(format_args!("tier: {tier}, and it cannot be made here: {why}"))?,
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}
