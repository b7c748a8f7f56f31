//! What can be typed. The help texts are examples: somebody in a hurry copies the line that fits.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use toolgate_sandbox::cell::Tier;
use toolgate_sandbox::egress::Rule;
use toolgate_sandbox::image::Platform;

/// The gate between AI agents and their tools: every call is judged by your policy, asked about when it is dangerous, and written down
#[derive(Debug, Parser)]
#[command(
    name = "toolgate",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "Examples:
  toolgate demo                      see a hijacked agent meet the gate, in a minute
  toolgate up                        start the gate; prints the line to paste for your agent
  toolgate init                      put the MCP servers you already have behind the gate
  toolgate question list             what waits for an answer
  toolgate approve q-7kx2            say yes to one call, with your passphrase or code
  toolgate log verify                prove that the log is whole

Exit codes: 0 done; 1 something went wrong, here or elsewhere; 2 refused by policy."
)]
pub(crate) struct Cli {
    /// The configuration file [default: toolgate.toml in ~/.config/toolgate, then in /etc/toolgate]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The state folder [default: ~/.local/state/toolgate]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) state: Option<PathBuf>,
    /// Print JSON for programs: one value a line, and nothing else, on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the gate: agents connect by HTTP or by Unix socket
    #[command(after_help = "Examples:
  toolgate up
  toolgate up --listen 127.0.0.1:8000")]
    Up(Up),
    /// Be the gate over standard input and output, for clients that start a command
    #[command(after_help = "Examples:
  claude mcp add toolgate -- toolgate mcp --agent claude-code
  toolgate mcp                       the agent is whoever has `peer_uid` set to your user")]
    Mcp(Mcp),
    /// See a hijacked agent meet the gate, without agent and network
    #[command(after_help = "Examples:
  toolgate demo
  toolgate demo --fast               without pauses
  toolgate demo --json               for programs")]
    Demo(Demo),
    /// Find the MCP servers you already have and put them behind the gate; changes nothing unless told to
    #[command(after_help = "Examples:
  toolgate init                      show what would be written
  toolgate init --write              write it
  toolgate init --person ada         and enrol yourself to answer questions")]
    Init(Init),
    /// Say what is covered, what is not, and what is wrong
    #[command(after_help = "Examples:
  toolgate doctor
  toolgate doctor --cell server      what a cell of this profile can reach
  toolgate doctor --json             for programs")]
    Doctor(Doctor),
    /// Run a command in a cell: it sees the system's programs and this folder, and reaches no host but those named
    #[command(after_help = "Examples:
  toolgate exec -- python3 script.py             changes to this folder are listed, and dropped
  toolgate exec --changes apply -- make          changes are taken over, but what runs by itself is not
  toolgate exec --time 10 --memory 256 -- ./untrusted
  toolgate exec --profile build -- make          what `[profiles.build]` of the configuration gives
  toolgate exec --image python -- python3 x.py   on the files of an image, with none of the system's programs
  toolgate exec --read ~/.cargo --env RUST_LOG=debug -- cargo test --offline
  toolgate exec --net index.example:443 --net files.example:443 -- pip install requests
  toolgate exec --secret github --net api.example.com:443 -- ./release.sh

The exit status is the command's own; 124: its time was over; 127: it could not be started.")]
    Exec(Exec),
    /// The images that cells can run on, in place of this system's programs
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Examples:
  skopeo copy docker://python:3 oci:python && toolgate image import python
  toolgate image list
  toolgate exec --image python -- python3 -c 'print(1)'"
    )]
    Image(ImageCommand),
    /// The agents that may connect
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Examples:
  toolgate agent add claude-code     adds one and prints its token
  toolgate agent list"
    )]
    Agent(AgentCommand),
    /// The tools that agents may be offered
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Examples:
  toolgate tool review               what servers offer that is new or has changed
  toolgate tool accept mail/search"
    )]
    Tool(ToolCommand),
    /// The rules
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Examples:
  toolgate policy check
  toolgate policy try --agent support mail/send_email '{\"to\":\"ada@example.com\"}'
  toolgate policy replay --since 7d"
    )]
    Policy(PolicyCommand),
    /// What people are asked
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Examples:
  toolgate question list             what waits for an answer
  toolgate question show q-7kx2"
    )]
    Question(QuestionCommand),
    /// Say yes to the one call a question is about
    #[command(after_help = "Examples:
  toolgate approve q-7kx2            asks for your passphrase
  toolgate approve q-7kx2 --as ada --code 123456")]
    Approve(Answer),
    /// Say no to the call a question is about
    #[command(after_help = "Examples:
  toolgate deny q-7kx2")]
    Deny(Answer),
    /// The people who answer questions
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Examples:
  toolgate person add ada            who answers, with a passphrase
  toolgate person list"
    )]
    Person(PersonCommand),
    /// The vault: credentials that servers get and agents never see
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Examples:
  toolgate secret add github --slot header:Authorization --host api.example.com --tool 'github/*'
  toolgate secret list
  toolgate secret rotate github"
    )]
    Secret(SecretCommand),
    /// Log in to a server in your browser, and keep what is got in the vault
    #[command(
        arg_required_else_help = true,
        after_help = "Examples:
  toolgate login tracker                          prints the address to open, and waits for the browser
  toolgate login tracker --open --scope 'issues:read issues:write'
  toolgate login tracker --no-browser             for a machine without one: paste the address that it ends at
  toolgate login tracker --issuer https://id.example --client-id mine
  toolgate login --list                           who is logged in where

The server is one of toolgate.toml with an `url`. It gets `secrets = [\"login-SERVER\"]` there."
    )]
    Login(Login),
    /// End a login: it is revoked where it was got, and removed here
    #[command(after_help = "Examples:
  toolgate logout tracker")]
    Logout(Logout),
    /// Show and revoke credentials that are minted from secrets
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Examples:
  toolgate lease list
  toolgate lease revoke 9f86d081884c7d65
  toolgate lease revoke --all"
    )]
    Lease(LeaseCommand),
    /// Take secrets, and personal data if asked for, out of what stands on standard input
    #[command(after_help = "Examples:
  journalctl -u shop | toolgate scrub > clean.log
  cat export.json | toolgate scrub --pii card,email
  kubectl get secret -o json | toolgate scrub --json

JSON stays JSON. What was removed is counted on standard error; nothing is written if the text cannot be looked
through to the end.

Rules of your own in toolgate.toml, `[scrub.rules]`, count too.")]
    Scrub(Scrub),
    /// What happened, and the proof of it
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = "Examples:
  toolgate log tail --follow
  toolgate log search --verdict deny --since 24h
  toolgate log verify"
    )]
    Log(LogCommand),
    /// Print the completions for a shell
    #[command(after_help = "Examples:
  toolgate completions bash > ~/.local/share/bash-completion/completions/toolgate
  toolgate completions fish > ~/.config/fish/completions/toolgate.fish")]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the manual pages into a folder
    #[command(after_help = "Examples:
  toolgate man ~/.local/share/man/man1")]
    Man {
        /// The folder; made if it is not there
        folder: PathBuf,
    },
    /// The demo's own MCP server, over standard input and output
    #[command(hide = true)]
    DemoServer,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The server
    #[arg(required_unless_present = "list")]
    pub(crate) server: Option<String>,
    /// List the servers that somebody is logged in to
    #[arg(long, conflicts_with = "server")]
    pub(crate) list: bool,
    /// Ask for these scopes, whatever the server says
    #[arg(long, value_name = "SCOPES")]
    pub(crate) scope: Option<String>,
    /// Be this client, which is known there (name it by `--issuer`); else one is registered
    #[arg(long, value_name = "ID", requires = "issuer")]
    pub(crate) client_id: Option<String>,
    /// Read the secret of that client from a file; `-` is the first line of standard input
    #[arg(long, value_name = "FILE", requires = "client_id")]
    pub(crate) client_secret_file: Option<PathBuf>,
    /// Log in there and nowhere else, whatever authorization servers the server names besides
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,
    /// Have the browser come back to this port [default: any]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Open the address with `xdg-open`
    #[arg(long)]
    pub(crate) open: bool,
    /// Do not wait for a browser: read the address that it ends at from standard input
    #[arg(long, conflicts_with = "open")]
    pub(crate) no_browser: bool,
    /// Read the passphrase of the vault from a file with mode 600
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// The server
    pub(crate) server: String,
    /// Read the passphrase of the vault from a file with mode 600
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Say what a cell of this profile can reach
    #[arg(long, value_name = "PROFILE")]
    pub(crate) cell: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// What the cell is given: a profile of the configuration, or `agent`, `code`, `server` or `tool` [default: code, as shipped]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Run on this image in place of the system's programs; `toolgate image list` shows those there are
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    /// The least that has to lie between it and this machine: `landlock-only`, `native`, `gvisor` or `microvm` [default: as the profile
    /// says; native]
    #[arg(long, value_name = "TIER")]
    pub(crate) tier: Option<Tier>,
    /// The folder to work in [default: this one]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) workspace: Option<PathBuf>,
    /// What becomes of changes to it
    #[arg(long, value_enum, default_value_t = Keep::List)]
    pub(crate) changes: Keep,
    /// Another file or folder that can be read and run; can be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) read: Vec<PathBuf>,
    /// Another file or folder that can be written; can be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) write: Vec<PathBuf>,
    /// A variable of the environment, with a value or with its own; can be given several times
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// A host and port that can be connected to, as in `api.example.com:443` or `*.example.com:443`; can be given several times.
    /// `NAME:PORT,private` is for addresses of private networks and of this machine
    #[arg(long, value_name = "NAME:PORT")]
    pub(crate) net: Vec<Rule>,
    /// A secret of the vault that has a placeholder and serves `exec/*`: put into requests to its hosts, and never in the cell; can be
    /// given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) secret: Vec<String>,
    /// Believe these certificates of the hosts of its secrets, in place of the system's
    #[arg(long, value_name = "FILE", requires = "secret")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How long it may take, in seconds [default: as the profile says; an hour]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) time: Option<u64>,
    /// How much memory it may use, in MiB [default: as the profile says; 4096]
    #[arg(long, value_name = "MIB")]
    pub(crate) memory: Option<u64>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// What becomes of changes to the folder that is worked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keep {
    /// Taken over, but not what runs by itself, leads out, or gives rights
    Apply,
    /// Taken over, also what runs by itself
    ApplyAll,
    /// Made at once, on the folder itself
    Direct,
    /// Dropped
    Discard,
    /// Listed and dropped
    List,
    /// There can be none: the folder is read-only
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Listen here, whatever the configuration says
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<std::net::SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Mcp {
    /// The agent that speaks; it has to have `peer_uid` set to your user in the configuration
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Do not pause between the steps
    #[arg(long)]
    pub(crate) fast: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Write what is shown
    #[arg(long)]
    pub(crate) write: bool,
    /// Enrol this person to answer questions
    #[arg(long, value_name = "NAME")]
    pub(crate) person: Option<String>,
    /// Read the new passphrase from a file with mode 600
    #[arg(long, value_name = "FILE", requires = "person")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Take an image in: a folder in the layout of OCI, a tar archive of one, or an archive of `docker save`
    #[command(after_help = "Examples:
  toolgate image import ./python
  toolgate image import python.tar --name py3
  toolgate image import ./python --platform linux/arm64")]
    Import {
        /// The folder or the archive; nothing is fetched
        source: PathBuf,
        /// What to call it [default: the name of the folder or archive]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// For which machine, if there are several [default: this one]
        #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
        platform: Option<Platform>,
    },
    /// List the images
    #[command(after_help = "Examples:
  toolgate image list
  toolgate image list --json         with the variables and the folder that they wish for")]
    List,
    /// Remove an image. Cells that run on it lose its files
    #[command(after_help = "Examples:
  toolgate image remove python")]
    Remove {
        /// Its name
        name: String,
    },
    /// Compare the files of an image with what was imported
    #[command(after_help = "Examples:
  toolgate image verify python")]
    Verify {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Add an agent and show its token, once
    #[command(after_help = "Examples:
  toolgate agent add claude-code
  toolgate agent add support --group helpdesk")]
    Add {
        /// Its name
        name: String,
        /// A group it belongs to; can be given several times
        #[arg(long, value_name = "NAME")]
        group: Vec<String>,
    },
    /// List the agents
    #[command(after_help = "Examples:
  toolgate agent list")]
    List,
    /// Remove an agent; its token is refused from then on
    #[command(after_help = "Examples:
  toolgate agent remove support")]
    Remove {
        /// Its name
        name: String,
    },
    /// Give an agent another token; the old one is refused from then on
    #[command(after_help = "Examples:
  toolgate agent rotate support")]
    Rotate {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ToolCommand {
    /// Ask the servers what they offer, and show what is new or has changed
    #[command(after_help = "Examples:
  toolgate tool review               all servers
  toolgate tool review mail          one server")]
    Review {
        /// Only this server
        server: Option<String>,
    },
    /// Accept definitions, as `tool review` showed them
    #[command(after_help = "Examples:
  toolgate tool accept mail/search mail/read
  toolgate tool accept --all mail    everything of that server that review showed
  toolgate tool accept --all")]
    Accept {
        /// The tools, as `server/tool`; with --all, the servers
        names: Vec<String>,
        /// Everything that is new or has changed
        #[arg(long)]
        all: bool,
    },
    /// List the accepted tools
    #[command(after_help = "Examples:
  toolgate tool list")]
    List,
    /// Take the acceptance of a tool back
    #[command(after_help = "Examples:
  toolgate tool remove mail/send_email")]
    Remove {
        /// The tool, as `server/tool`
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check the policy files: names, types, examples
    #[command(after_help = "Examples:
  toolgate policy check
  toolgate policy check --policy ./new")]
    Check {
        /// Check the files in this folder instead of those in force
        #[arg(long, value_name = "FOLDER")]
        policy: Option<PathBuf>,
    },
    /// Say why a call gets its verdict: every rule that was looked at, and what it read
    #[command(after_help = "Examples:
  toolgate policy explain --agent support mail/send_email '{\"to\":\"ada@example.com\"}'")]
    Explain(Try),
    /// Judge a call by hand; exits with 2 if it is refused
    #[command(after_help = "Examples:
  toolgate policy try --agent support mail/send_email '{\"to\":\"ada@example.com\"}'
  toolgate policy try --agent support --policy ./new mail/send_email '{}'")]
    Try(Try),
    /// Judge the calls of the log again and print what would differ
    #[command(after_help = "Examples:
  toolgate policy replay --since 24h
  toolgate policy replay --since 7d --policy ./new")]
    Replay {
        /// How far back
        #[arg(long, value_name = "TIME", default_value = "24h")]
        since: String,
        /// Judge by the files in this folder instead of those in force
        #[arg(long, value_name = "FOLDER")]
        policy: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Try {
    /// The tool, as `server/tool`, or another action such as `resources/read`
    pub(crate) action: String,
    /// The arguments: a JSON object
    #[arg(default_value = "{}")]
    pub(crate) arguments: String,
    /// The agent that would call
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: String,
    /// The server, where the action does not name it
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<String>,
    /// Judge by the files in this folder instead of those in force
    #[arg(long, value_name = "FOLDER")]
    pub(crate) policy: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuestionCommand {
    /// List the questions that wait for an answer
    #[command(after_help = "Examples:
  toolgate question list
  toolgate question list --all       also those that are over")]
    List {
        /// Also those that were answered, used or have expired
        #[arg(long)]
        all: bool,
    },
    /// Show everything there is to know about a question before it is answered
    #[command(after_help = "Examples:
  toolgate question show q-7kx2")]
    Show {
        /// The question's number, or the beginning of it
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Answer {
    /// The question's number, or the beginning of it
    pub(crate) id: String,
    /// Who answers, if several people could
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) person: Option<String>,
    /// The code your authenticator app shows now
    #[arg(long, value_name = "DIGITS")]
    pub(crate) code: Option<String>,
    /// Read the passphrase from a file with mode 600
    #[arg(long, value_name = "FILE", conflicts_with = "code")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Scrub {
    /// Personal data too: `all`, or some of `card`, `email`, `iban`, `id`, `ip`, `phone`
    #[arg(long, value_name = "CLASSES", value_delimiter = ',')]
    pub(crate) pii: Vec<String>,
    /// The most that is read, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub(crate) max_size: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Scan {
    /// Files and folders; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Personal data too: `all`, or some of `card`, `email`, `iban`, `id`, `ip`, `phone`
    #[arg(long, value_name = "CLASSES", value_delimiter = ',')]
    pub(crate) pii: Vec<String>,
    /// The largest file that is looked into, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub(crate) max_size: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// List the credentials that may be good for something
    #[command(after_help = "Examples:
  toolgate lease list
  toolgate lease list --json")]
    List,
    /// Have credentials revoked: at once by the gate that has them, or when the next one starts
    #[command(
        group = ArgGroup::new("which").required(true),
        after_help = "Examples:
  toolgate lease revoke 9f86d081884c7d65                 the beginning of its number is enough
  toolgate lease revoke --secret github
  toolgate lease revoke --all"
    )]
    Revoke {
        /// The number of one, or its beginning
        #[arg(group = "which")]
        lease: Option<String>,
        /// All that were minted from this secret
        #[arg(long, value_name = "SECRET", group = "which")]
        secret: Option<String>,
        /// All
        #[arg(long, group = "which")]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Look for secrets in files, folders, transcripts of agents, or standard input
    #[command(after_help = "Examples:
  toolgate secret scan .
  toolgate secret scan ~/.claude/projects --json
  git log -p | toolgate secret scan -
  toolgate secret scan --pii card,iban export.csv

No value is printed: each finding has its place, its kind, a masked excerpt, and a fingerprint that is the same for the
same value. Files of JSON lines are read as such; `.git`, links and binary files are left out.

Rules of your own in toolgate.toml, `[scrub.rules]`, count too.

Exit codes: 0 nothing found; 1 something could not be looked into; 3 something was found.")]
    Scan(Scan),
    #[command(flatten)]
    Vault(VaultCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum VaultCommand {
    /// Put a secret into the vault
    #[command(after_help = "Examples:
  toolgate secret add github --slot header:Authorization --host api.example.com --tool 'github/*'
  pass show api | toolgate secret add search --slot query:key --host search.example --tool search/query
  toolgate secret add db --slot env:PGPASSWORD --tool 'database/*' --agent reports
  toolgate secret add aws-decoy --honeytoken --value-file decoy.txt

With `--mint`, the secret itself stays here, and short credentials are minted from it: `toolgate secret providers`.
Then say in toolgate.toml which server gets it: `[servers.github]` `secrets = [\"github\"]`.")]
    Add {
        /// What it is called
        name: String,
        /// It goes nowhere, and is there to be recognized: whatever call would send it is refused
        #[arg(long, conflicts_with_all = ["slot", "placeholder", "host", "tool", "agent"])]
        honeytoken: bool,
        #[command(flatten)]
        uses: UsesArgs,
        #[command(flatten)]
        value: ValueArgs,
    },
    /// List the secrets, without their values
    #[command(after_help = "Examples:
  toolgate secret list")]
    List,
    /// List who mints credentials from secrets, and what can be said about them
    #[command(after_help = "Examples:
  toolgate secret providers")]
    Providers,
    /// Say what a secret is good for
    #[command(after_help = "Examples:
  toolgate secret show github")]
    Show {
        /// What it is called
        name: String,
    },
    /// Give a secret another value
    #[command(after_help = "Examples:
  toolgate secret rotate github
  toolgate secret rotate github --value-file new-token")]
    Rotate {
        /// What it is called
        name: String,
        #[command(flatten)]
        value: ValueArgs,
    },
    /// Remove a secret
    #[command(after_help = "Examples:
  toolgate secret remove github")]
    Remove {
        /// What it is called
        name: String,
    },
    /// Say anew what a secret is good for; what is not named stays
    #[command(after_help = "Examples:
  toolgate secret use-where github                       what it is good for now
  toolgate secret use-where github --agent support --agent triage
  toolgate secret use-where github --host api.example.com --host uploads.example.com
  toolgate secret use-where github --placeholder env:GH_TOKEN=ghp_ --tool 'shell/*' --tool 'exec/*'

With a placeholder, a program in a cell has something that looks like the secret; its requests to
the hosts of the secret get that itself on their way, and answers lose it.")]
    UseWhere {
        /// What it is called
        name: String,
        #[command(flatten)]
        uses: UsesArgs,
    },
    /// List, add and remove the ways in which the vault opens
    #[command(after_help = "Examples:
  toolgate secret unlock                                 how it opens now
  toolgate secret unlock --add-passphrase                asked for when the gate starts
  toolgate secret unlock --add-keyring                   a key in the desktop's keyring
  toolgate secret unlock --add-tpm                       a key that this machine's TPM seals
  toolgate secret unlock --add-credential vault          a credential that systemd gives the service
  toolgate secret unlock --add-command -- op read op://Private/toolgate/key
  toolgate secret unlock --remove 1                      not with the first of the list any more")]
    Unlock(Unlock),
    /// Say that an older vault, or another one, is the right one: after restoring a backup
    #[command(after_help = "Examples:
  toolgate secret trust")]
    Trust,
}

/// What a secret is good for.
#[derive(Debug, Args)]
pub(crate) struct UsesArgs {
    /// Where it goes: `header:NAME`, `header:NAME: Token {}`, `query:KEY`, `basic:USER`, `path:bot{}`, `json:/auth/token`,
    /// `sigv4:REGION/SERVICE`, `env:NAME` or `file:NAME`; a part of what is minted: `env:NAME=PART`
    #[arg(long, value_name = "SLOT")]
    pub(crate) slot: Vec<String>,
    /// Where a program in a cell finds what stands for it, until a request to one of the hosts is on its way: `env:NAME`, `file:NAME`,
    /// or `env:NAME=PREFIX`, with what it has to begin with
    #[arg(long, value_name = "PLACE")]
    pub(crate) placeholder: Vec<String>,
    /// Mint short credentials from it, and send nobody but the provider the secret itself: `toolgate secret providers` lists them
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) mint: Option<String>,
    /// What is minted: `KEY=VALUE`, `KEY=@FILE`; `{args.NAME}` stands for what a call says, `idle.KEY` holds where there is no call
    #[arg(long, value_name = "KEY=VALUE", requires = "mint")]
    pub(crate) with: Vec<String>,
    /// A host that it may be sent to, and a port if that is not 443
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Vec<String>,
    /// A tool whose calls it serves, or all of a server: `server/*`
    #[arg(long, value_name = "TOOL")]
    pub(crate) tool: Vec<String>,
    /// An agent whose calls it serves [default: all]
    #[arg(long, value_name = "AGENT")]
    pub(crate) agent: Vec<String>,
}

/// Where a value comes from: a file, what is piped in, or the terminal. Never an argument, which others can see.
#[derive(Debug, Args)]
pub(crate) struct ValueArgs {
    /// Read the value from a file [default: what is piped in, or the terminal]
    #[arg(long, value_name = "FILE")]
    pub(crate) value_file: Option<PathBuf>,
    /// Read the passphrase of the vault from a file with mode 600
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// How the vault opens.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").multiple(false))]
pub(crate) struct Unlock {
    /// With a passphrase too
    #[arg(long, group = "change")]
    pub(crate) add_passphrase: bool,
    /// With this file too; it is made if it is not there
    #[arg(long, value_name = "FILE", group = "change")]
    pub(crate) add_key_file: Option<PathBuf>,
    /// With a credential of systemd too
    #[arg(long, value_name = "NAME", group = "change")]
    pub(crate) add_credential: Option<String>,
    /// With a key in the keyring of the desktop too
    #[arg(long, group = "change")]
    pub(crate) add_keyring: bool,
    /// With a key sealed by this machine's TPM too
    #[arg(long, group = "change")]
    pub(crate) add_tpm: bool,
    /// With what the command after `--` prints too
    #[arg(long, group = "change", requires = "command")]
    pub(crate) add_command: bool,
    /// Not in this way any more
    #[arg(long, value_name = "NUMBER", group = "change")]
    pub(crate) remove: Option<usize>,
    /// Read the passphrase from a file with mode 600
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Read the new passphrase from a file with mode 600
    #[arg(long, value_name = "FILE", requires = "add_passphrase")]
    pub(crate) new_passphrase_file: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", requires = "add_command")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PersonCommand {
    /// Enrol a person who answers questions
    #[command(after_help = "Examples:
  toolgate person add ada            with a passphrase, asked for on the terminal
  toolgate person add grace --totp   with the codes of an authenticator app")]
    Add {
        /// Their name
        name: String,
        /// With one-time codes instead of a passphrase
        #[arg(long)]
        totp: bool,
        /// Read the new passphrase from a file with mode 600
        #[arg(long, value_name = "FILE", conflicts_with = "totp")]
        passphrase_file: Option<PathBuf>,
    },
    /// List the people
    #[command(after_help = "Examples:
  toolgate person list")]
    List,
    /// Remove a person; nothing they said before is used any more
    #[command(after_help = "Examples:
  toolgate person remove ada")]
    Remove {
        /// Their name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show one record, or both records of a call, with arguments and result
    #[command(after_help = "Examples:
  toolgate log show 1041
  toolgate log show 01937a5c-6d2e-7c3a-9f00-2f6a1d3b4c5d")]
    Show {
        /// The index of a record, or the number of a call
        id: String,
    },
    /// Show the last records
    #[command(after_help = "Examples:
  toolgate log tail
  toolgate log tail -n 100 --follow")]
    Tail {
        /// How many
        #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
        number: u64,
        /// Go on as records come
        #[arg(short, long)]
        follow: bool,
    },
    /// Find records
    #[command(after_help = "Examples:
  toolgate log search --verdict deny --since 24h
  toolgate log search --agent support --tool mail/send_email
  toolgate log search --text q-7kx2")]
    Search {
        /// Only of this agent
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        /// Only of this tool
        #[arg(long, value_name = "SERVER/TOOL")]
        tool: Option<String>,
        /// Only calls with this verdict
        #[arg(long, value_enum)]
        verdict: Option<VerdictArg>,
        /// How far back
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Only records that have this text in them
        #[arg(long, value_name = "TEXT")]
        text: Option<String>,
    },
    /// Check the whole log, every hash, every record, every signature; or one receipt
    #[command(after_help = "Examples:
  toolgate log verify
  toolgate log verify --old checkpoint.of.last.week
  toolgate log verify /backup/log --vkey \"$(cat log.key)\"
  toolgate log verify --receipt 1041.intent.tlog-proof --leaf 1041.intent.json --vkey \"$(cat log.key)\"")]
    Verify {
        /// The folder of the log [default: the gate's own]
        folder: Option<PathBuf>,
        /// An older checkpoint that the log has to extend; can be given several times
        #[arg(long, value_name = "FILE")]
        old: Vec<PathBuf>,
        /// The log's verifier key [default: the gate's own]
        #[arg(long, value_name = "KEY")]
        vkey: Option<String>,
        /// Check this receipt alone, without the log
        #[arg(long, value_name = "FILE", requires = "leaf", conflicts_with_all = ["folder", "old"])]
        receipt: Option<PathBuf>,
        /// The record that the receipt is about, as it was written beside it
        #[arg(long, value_name = "FILE", requires = "receipt")]
        leaf: Option<PathBuf>,
    },
    /// Write the receipt of one call, or of one record: the records, and a proof that each is in the log
    #[command(after_help = "Examples:
  toolgate log prove 1041
  toolgate log prove 01937a5c-6d2e-7c3a-9f00-2f6a1d3b4c5d --out receipts")]
    Prove {
        /// The index of a record, or the number of a call
        id: String,
        /// The folder to write into
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        out: PathBuf,
    },
    /// Print records for other systems, one JSON object a line
    #[command(after_help = "Examples:
  toolgate log export > log.jsonl
  toolgate log export --format ocsf --since 24h")]
    Export {
        /// In which form
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        /// How far back
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
    /// Print the key that others verify the log with
    #[command(after_help = "Examples:
  toolgate log key > log.key")]
    Key,
    /// Forget values: arguments and results go, the log and all its proofs stay
    #[command(
        group(ArgGroup::new("whose").required(true).args(["record", "agent"])),
        after_help = "Examples:
  toolgate log erase --record 1041 --ground \"request of 3 May\"
  toolgate log erase --agent support --ground \"contract ended\""
    )]
    Erase {
        /// The values of this record
        #[arg(long, value_name = "INDEX")]
        record: Option<u64>,
        /// All values of this agent
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        /// Why; written into the log
        #[arg(long, value_name = "TEXT")]
        ground: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerdictArg {
    Allow,
    Ask,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line
    Jsonl,
    /// The Open Cybersecurity Schema Framework, one event a line
    Ocsf,
}
