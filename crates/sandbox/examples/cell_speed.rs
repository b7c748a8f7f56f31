//! Measures cells beside bare programs, one after the other in turns, and prints one line of JSON for each figure.
//!
//! `cell_speed LAUNCHER [ROUNDS]`: the program that makes the cells, whose `main` has to begin with
//! [`launcher`](toolgate_sandbox::cell::launcher), and how often each thing is done. If it is called `toolgate`, `toolgate exec` is
//! measured, too.

use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use serde_json::json;
use toolgate_sandbox::cell::{Cell, Cells, Layers, Profile, Spec};

type Failed = Box<dyn Error + Send + Sync>;

/// How much goes through a way out, in each direction.
const STREAM: usize = 1 << 30;

/// How many cells are held at once to see what one takes.
const HELD: usize = 64;

/// How many wait in the pool while single ones are taken.
const POOLED: usize = 2;

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--stream", to, way] => stream(to, way),
        [launcher, rest @ ..] => {
            let rounds = rest.first().map_or(Ok(300), |rounds| rounds.parse())?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(measure(Path::new(launcher), rounds))
        }
        [] => Err("usage: cell_speed LAUNCHER [ROUNDS]".into()),
    }
}

async fn measure(launcher: &Path, rounds: usize) -> Result<(), Failed> {
    let cells = Cells::start(launcher, Layers::ALL)?;
    starts(&cells, launcher, rounds).await?;
    python(&cells, rounds.div_ceil(5)).await?;
    fill(&cells).await?;
    held(&cells).await?;
    stream_through(&cells).await
}

/// One line of what was measured.
#[expect(clippy::print_stdout, reason = "it is what the program is for")]
fn tell(name: &str, value: f64, unit: &str, direct: Option<f64>) {
    let mut row = json!({"name": name, "value": value, "unit": unit});
    if let (Some(row), Some(direct)) = (row.as_object_mut(), direct) {
        row.insert("direct".to_owned(), json!(direct));
    }
    println!("{row}");
}

/// What something took, over and over.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    /// In milliseconds: what so many of a hundred took at most.
    fn of_a_hundred(&mut self, percent: usize) -> f64 {
        self.0.sort_unstable();
        self.0.get(self.0.len() * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    fn tell(&mut self, name: &str, bare: Option<&mut Self>) {
        let direct = bare.map(|bare| (bare.of_a_hundred(50), bare.of_a_hundred(95)));
        tell(&format!("{name}, p50"), self.of_a_hundred(50), "ms", direct.map(|(p50, _)| p50));
        tell(&format!("{name}, p95"), self.of_a_hundred(95), "ms", direct.map(|(_, p95)| p95));
    }
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(command: &mut Command) -> Result<Duration, Failed> {
    let begin = Instant::now();
    let status = command.status()?;
    let took = begin.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{command:?}: {status}").into()) }
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// From looking at the profile to the exit status.
async fn in_cell(cells: &Cells, profile: &Profile, words: &[&str], warm: bool) -> Result<Duration, Failed> {
    if warm {
        let planned = profile.plan(argv(words))?;
        cells.warm(&planned.spec, POOLED);
        until_waiting(cells, &planned.spec, POOLED).await;
    }
    let begin = Instant::now();
    let planned = profile.plan(argv(words))?;
    let cell = cells.run(&planned.spec).await?;
    let ended = cell.ended().await?;
    let took = begin.elapsed();
    if ended.code != Some(0) || cell.waited && !warm {
        return Err(format!("{words:?} ended with {ended:?}").into());
    }
    Ok(took)
}

async fn until_waiting(cells: &Cells, spec: &Spec, count: usize) {
    while cells.waiting(spec) < count {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    // The last one was heard of; what it is made of may still be settling.
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// The program that does nothing: bare, in cells, and in the sandbox of others.
async fn starts(cells: &Cells, launcher: &Path, rounds: usize) -> Result<(), Failed> {
    let program = Path::new("/bin/true");
    let words = ["/bin/true"];
    let plain = Profile::default();
    let networked = Profile { net: vec!["api.example.com:443".parse()?], ..Profile::default() };
    // A shape of its own, so that the others are always made.
    let pooled = Profile { scratch_inodes: 65_535, ..Profile::default() };
    let toolgate = launcher.file_name().is_some_and(|name| name == "toolgate");
    let bubblewrap = bubblewrap();
    let [mut bare, mut cold, mut warm, mut net, mut others, mut exec, mut exec_net] =
        std::array::from_fn(|_| Times::default());
    for _ in 0..rounds {
        bare.0.push(run(&mut command(program, &[]))?);
        cold.0.push(in_cell(cells, &plain, &words, false).await?);
        if let Some(bubblewrap) = &bubblewrap {
            others.0.push(run(&mut command(bubblewrap, BUBBLEWRAP))?);
        }
    }
    for _ in 0..rounds {
        warm.0.push(in_cell(cells, &pooled, &words, true).await?);
    }
    for _ in 0..rounds.div_ceil(3) {
        net.0.push(in_cell(cells, &networked, &words, false).await?);
        if toolgate {
            let before = ["exec", "--changes", "none", "--", "/bin/true"];
            exec.0.push(run(command(launcher, &before).current_dir("/var/tmp"))?);
            let before = ["exec", "--changes", "none", "--net", "api.example.com:443", "--", "/bin/true"];
            exec_net.0.push(run(command(launcher, &before).current_dir("/var/tmp"))?);
        }
    }
    bare.tell("bare program", None);
    let with = if cells.limits_memory() { "with a cgroup" } else { "without a cgroup" };
    cold.tell(&format!("cold cell, all layers, {with}"), Some(&mut bare));
    net.tell("cold cell with a way out", Some(&mut bare));
    warm.tell("cell that waited", Some(&mut bare));
    match bubblewrap {
        Some(_) => others.tell("bubblewrap, namespaces and mounts alone", Some(&mut bare)),
        None => not_here("bubblewrap"),
    }
    if toolgate {
        exec.tell("toolgate exec", Some(&mut bare));
        exec_net.tell("toolgate exec --net", Some(&mut bare));
    }
    Ok(())
}

const BUBBLEWRAP: &[&str] = &[
    "--unshare-all",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--tmpfs",
    "/tmp",
    "/bin/true",
];

fn bubblewrap() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("bwrap")).find(|program| program.is_file())
}

#[expect(clippy::print_stderr, reason = "it is a program")]
fn not_here(what: &str) {
    eprintln!("{what} is not installed, and was not measured");
}

/// A program that takes its time to start.
async fn python(cells: &Cells, rounds: usize) -> Result<(), Failed> {
    let (program, words) = (Path::new("/usr/bin/python3"), ["/usr/bin/python3", "-c", "pass"]);
    if !program.exists() {
        not_here("python3");
        return Ok(());
    }
    let plain = Profile::default();
    let pooled = Profile { scratch_inodes: 65_534, ..Profile::default() };
    let [mut bare, mut cold, mut warm] = std::array::from_fn(|_| Times::default());
    for _ in 0..rounds {
        bare.0.push(run(&mut command(program, &["-c", "pass"]))?);
        cold.0.push(in_cell(cells, &plain, &words, false).await?);
        warm.0.push(in_cell(cells, &pooled, &words, true).await?);
    }
    cold.tell("python3 -c pass, cold cell", Some(&mut bare));
    warm.tell("python3 -c pass, cell that waited", Some(&mut bare));
    Ok(())
}

/// Shapes that differ in nothing that matters, so that more cells can wait than there may be of one.
fn shapes() -> Result<Vec<Spec>, Failed> {
    let shape = |number: u64| {
        let profile = Profile { scratch_inodes: 60_000 + number, ..Profile::default() };
        Ok(profile.plan(argv(&["/bin/sleep", "1000"]))?.spec)
    };
    (0..8).map(shape).collect()
}

/// How fast cells get ready.
async fn fill(cells: &Cells) -> Result<(), Failed> {
    let (before, begin) = (memory()?, Instant::now());
    let shapes = shapes()?;
    shapes.iter().for_each(|spec| cells.warm(spec, HELD / shapes.len()));
    for spec in &shapes {
        while cells.waiting(spec) < HELD / shapes.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    tell("cells made ready, in a second", HELD as f64 / begin.elapsed().as_secs_f64(), "1/s", None);
    settle().await;
    tell("memory of a cell that waits", (memory()? - before) / HELD as f64, "MiB", None);
    shapes.iter().for_each(|spec| cells.warm(spec, 0));
    settle().await;
    Ok(())
}

/// The memory of cells, without that of what runs in them.
async fn held(cells: &Cells) -> Result<(), Failed> {
    let before = memory()?;
    let start = |_| command(Path::new("/bin/sleep"), &["1000"]).spawn();
    let mut bare: Vec<Child> = (0..HELD).map(start).collect::<Result<_, _>>()?;
    settle().await;
    let plain = (memory()? - before) / HELD as f64;
    for child in &mut bare {
        child.kill()?;
        child.wait()?;
    }
    settle().await;
    let before = memory()?;
    let spec = Profile::default().plan(argv(&["/bin/sleep", "1000"]))?.spec;
    let mut running: Vec<Cell> = Vec::new();
    for _ in 0..HELD {
        running.push(cells.run(&spec).await?);
    }
    settle().await;
    let in_cells = (memory()? - before) / HELD as f64;
    tell("memory of a cell that runs, without its program", in_cells - plain, "MiB", None);
    Ok(())
}

/// What ended takes the kernel a while to put away.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// What this machine holds for processes, theirs and the kernel's for them, in MiB.
fn memory() -> Result<f64, Failed> {
    let counted = ["AnonPages:", "Shmem:", "Slab:", "KernelStack:", "PageTables:", "Percpu:"];
    let text = fs::read_to_string("/proc/meminfo")?;
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        counted.contains(&name).then(|| words.next()?.parse::<f64>().ok())?
    };
    Ok(text.lines().filter_map(of).sum::<f64>() / 1024.0)
}

/// The client of the stream, in a cell or out of it.
fn stream(to: &str, way: &str) -> Result<(), Failed> {
    let mut server = TcpStream::connect(to)?;
    let moved = match way {
        "down" => io::copy(&mut server, &mut io::sink())?,
        _ => {
            let part = vec![7; 1 << 20];
            (0..STREAM / part.len()).try_for_each(|_| server.write_all(&part))?;
            server.shutdown(std::net::Shutdown::Write)?;
            // It says when it has had everything.
            server.read_to_end(&mut Vec::new())?;
            STREAM as u64
        }
    };
    if moved == STREAM as u64 { Ok(()) } else { Err(format!("{moved} bytes").into()) }
}

/// One stream from the host to a cell and back, beside the same without a cell.
async fn stream_through(cells: &Cells) -> Result<(), Failed> {
    let itself = env::current_exe()?;
    let client = itself.to_str().ok_or("a path that is no text")?;
    for way in ["down", "up"] {
        let mut rates = Vec::new();
        for in_a_cell in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let port = listener.local_addr()?.port();
            let server = thread::spawn(move || serve(&listener, way));
            let to = format!("{}:{port}", if in_a_cell { "host.internal" } else { "127.0.0.1" });
            let begin = Instant::now();
            if in_a_cell {
                let net = vec![format!("{to},private").parse()?];
                let exec = vec![itself.clone()];
                let profile = Profile { net, exec, ..Profile::default() };
                let planned = profile.plan(argv(&[client, "--stream", &to, way]))?;
                let mut cell = cells.run(&planned.spec).await?;
                let mut events = cell.network.take().ok_or("no way out")?;
                tokio::spawn(async move { while events.recv().await.is_some() {} });
                let done = cell.finish(b"", &planned.spec.limits).await?;
                if done.ended.code != Some(0) {
                    return Err(format!("the client ended with {done:?}").into());
                }
            } else {
                run(&mut command(&itself, &["--stream", &to, way]))?;
            }
            rates.push(STREAM as f64 / 1e6 / begin.elapsed().as_secs_f64());
            server.join().map_err(|_panicked| "the server")??;
        }
        if let [bare, cell] = rates.as_slice() {
            tell(&format!("way out, one stream, {way}"), *cell, "MB/s", Some(*bare));
        }
    }
    Ok(())
}

fn serve(listener: &TcpListener, way: &str) -> io::Result<()> {
    let (mut client, _) = listener.accept()?;
    match way {
        "down" => {
            let part = vec![7; 1 << 20];
            (0..STREAM / part.len()).try_for_each(|_| client.write_all(&part))
        }
        _ => io::copy(&mut client, &mut io::sink()).map(drop),
    }
}
