//! Names: parsed once at the border into types that cannot be wrong.

use std::fmt;
use std::str::FromStr;

/// Why a name cannot be used. The text says what was wrong and how it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A server's name has other characters than it may.
    #[error(
        "server name `{0}` is not 1 to 32 of a-z, 0-9, `-` and single `_`, starting with a letter and ending with a letter or digit"
    )]
    Server(String),
    /// A server's name would make its tools look like another kind of call.
    #[error("server name `{0}` is reserved; choose another")]
    Reserved(String),
    /// A tool's name has no server part.
    #[error("tool name `{0}` names no server; write it as `server/tool`")]
    NoServer(String),
    /// A tool's own name has other characters than it may.
    #[error("tool name `{0}` is not 1 to 128 of A-Z, a-z, 0-9, `_`, `-`, `.` and `/`")]
    Tool(String),
    /// An agent's, rule's or question's name has other characters than it may.
    #[error(
        "{what} name `{name}` is not 1 to 64 of a-z, A-Z, 0-9, `_`, `-` and `.`, starting with a letter or digit"
    )]
    Plain {
        /// What was to be named: `agent`, `group`, `rule`, `question`, `profile`, `person` or `secret`.
        what: &'static str,
        /// The name as it was given, hidden characters escaped.
        name: String,
    },
}

/// Names of servers that would collide with the names of calls that are not tool calls.
const RESERVED: [&str; 9] =
    ["completion", "elicitation", "prompts", "resources", "roots", "sampling", "tasks", "tools", "toolgate"];

/// The name an operator gave a server. It has no `__`, so `server__tool` splits in one way only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName(String);

impl ServerName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain =
            text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        let ends = text.bytes().last().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !plain || !begins || !ends || text.len() > 32 || text.contains("__") {
            return Err(NameError::Server(text.escape_debug().to_string()));
        }
        if RESERVED.contains(&text) {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tool: the server that offers it and the name it has there. Written `server/tool`; `server__tool` towards MCP clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ToolName {
    server: ServerName,
    tool: String,
}

impl ToolName {
    /// Puts a server's name and the name that the server itself uses together.
    ///
    /// # Errors
    /// The tool's own name has characters that MCP does not allow in one.
    pub fn new(server: ServerName, tool: &str) -> Result<Self, NameError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
        if tool.is_empty() || tool.len() > 128 || !tool.bytes().all(plain) {
            return Err(NameError::Tool(tool.escape_debug().to_string()));
        }
        Ok(Self { server, tool: tool.to_owned() })
    }

    /// Reads the form that MCP clients see, `server__tool`.
    ///
    /// # Errors
    /// There is no `__`, or a part is no name.
    pub fn from_mcp(text: &str) -> Result<Self, NameError> {
        let (server, tool) =
            text.split_once("__").ok_or_else(|| NameError::NoServer(text.escape_debug().to_string()))?;
        Self::new(server.parse()?, tool)
    }

    /// The server that offers the tool.
    #[must_use]
    pub const fn server(&self) -> &ServerName {
        &self.server
    }

    /// The name that the server itself uses.
    #[must_use]
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// The form that MCP clients see.
    #[must_use]
    pub fn to_mcp(&self) -> String {
        format!("{}__{}", self.server, self.tool)
    }
}

impl FromStr for ToolName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (server, tool) =
            text.split_once('/').ok_or_else(|| NameError::NoServer(text.escape_debug().to_string()))?;
        Self::new(server.parse()?, tool)
    }
}

impl fmt::Display for ToolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.tool)
    }
}

macro_rules! plain_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                plain(text).then(|| Self(text.to_owned())).ok_or_else(|| NameError::Plain {
                    what: $what,
                    name: text.escape_debug().to_string(),
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn plain(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

plain_name!(
    /// The name of an agent: a program with an identity of its own.
    AgentId,
    "agent"
);
plain_name!(
    /// The name of a group of agents.
    GroupName,
    "group"
);
plain_name!(
    /// The `@id` of a rule.
    RuleName,
    "rule"
);
plain_name!(
    /// What `@ask("…")` names: a table `[questions.NAME]` in the configuration.
    QuestionName,
    "question"
);
plain_name!(
    /// What a kind of cell is called: a table `[profiles.NAME]` in the configuration.
    ProfileName,
    "profile"
);
impl ProfileName {
    /// What servers run in where nothing else is said.
    #[must_use]
    pub fn of_servers() -> Self {
        Self("server".to_owned())
    }
}

plain_name!(
    /// Somebody who answers questions.
    PersonName,
    "person"
);

plain_name!(
    /// What a secret is called in the vault.
    SecretName,
    "secret"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_names() {
        for (input, want) in [
            ("github/create_issue", Ok("github/create_issue")),
            ("a/b/c", Ok("a/b/c")),
            ("create_issue", Err("tool name `create_issue` names no server; write it as `server/tool`")),
            ("resources/read", Err("server name `resources` is reserved; choose another")),
            ("a/", Err("tool name `` is not 1 to 128 of A-Z, a-z, 0-9, `_`, `-`, `.` and `/`")),
            (
                "a/b\u{200b}",
                Err("tool name `b\\u{200b}` is not 1 to 128 of A-Z, a-z, 0-9, `_`, `-`, `.` and `/`"),
            ),
        ] {
            let got = input.parse::<ToolName>().map(|n| n.to_string()).map_err(|e| e.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), want, "input: {input:?}");
        }
    }

    #[test]
    fn the_mcp_form_splits_in_one_way() {
        for (server, tool) in [("a", "b"), ("a", "_b"), ("a", "b__c"), ("a_b", "__c"), ("a-1", "x.y/z")] {
            let name = ToolName::new(server.parse().unwrap(), tool).unwrap();
            assert_eq!(ToolName::from_mcp(&name.to_mcp()), Ok(name), "server {server:?}, tool {tool:?}");
        }
        for server in ["a_", "a__b", "_a", "A", "", "1a", "a.b", "tools"] {
            assert!(server.parse::<ServerName>().is_err(), "server {server:?}");
        }
    }
}
