//! `docker compose`, by argv. Variables for substitution go through the environment, so they show in no argument
//! list; the repository's own `.env` keeps working beneath them.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use stagely_domain::failure::Code;
use stagely_proto::agent::Preview;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Tools};
use crate::fault::{self, Fault, Stop};
use crate::process::Command;
use crate::{files, registry};

/// Variables that would change how the tools themselves work.
const RESERVED: &[&str] = &["PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME"];

/// One compose project.
pub struct Compose {
    tools: Tools,
    project: String,
    directory: PathBuf,
    /// Empty when the files are gone: compose then goes by the labels of what runs.
    files: Vec<String>,
    env: Vec<(String, String)>,
}

/// What a service's definition says, as far as it matters here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// What to run.
    pub image: String,
    /// Present when compose can build it.
    pub build: Option<serde_json::Value>,
}

impl Compose {
    /// The project of `preview`, with its override file written. Its files are read from `directory`.
    ///
    /// # Errors
    /// If names or paths are not what they should be, or the file cannot be written.
    pub fn of_preview(config: &Config, preview: &Preview, directory: &Path) -> Result<Self, Stop> {
        let mut compose = Self::by_name(config, &preview.project_name)?;
        compose.directory = directory.to_owned();
        let mut found = preview.compose_files.clone();
        for file in &found {
            let inside =
                Path::new(file).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            if !inside || file.starts_with('-') {
                return Err(invalid(format!("{file:?} is not a path inside the repository")));
            }
            if !directory.join(file).is_file() {
                return Err(invalid(format!("the compose file {file} does not exist")));
            }
        }
        if !preview.override_yaml.is_empty() {
            let path = config.paths.run.join("compose.override.yml");
            files::write_private(&path, preview.override_yaml.as_bytes())
                .map_err(|error| invalid(error.to_string()))?;
            found.push(path.display().to_string());
        }
        compose.files = found;
        for (name, value) in &preview.variables {
            if !RESERVED.contains(&name.as_str()) && !name.starts_with("LD_") {
                compose.env.push((name.clone(), value.clone()));
            }
        }
        Ok(compose)
    }

    /// A project whose files are gone.
    ///
    /// # Errors
    /// If the name is none.
    pub fn by_name(config: &Config, project: &str) -> Result<Self, Stop> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if !project.starts_with(|c: char| c.is_ascii_alphanumeric()) || !project.chars().all(plain) {
            return Err(invalid(format!("{project:?} is not a compose project name")));
        }
        Ok(Self {
            tools: config.tools.clone(),
            project: project.to_owned(),
            directory: PathBuf::from("/"),
            files: Vec::new(),
            env: vec![
                ("DOCKER_CONFIG".to_owned(), registry::client_directory(&config.paths).display().to_string()),
                ("DOCKER_HOST".to_owned(), format!("unix://{}", config.paths.docker_socket.display())),
            ],
        })
    }

    /// `docker compose <args>` for this project.
    #[must_use]
    pub fn command(&self, args: &[&str], deadline: Duration) -> Command {
        let (program, mut all) = match self.tools.plugin("compose") {
            Some(plugin) => (plugin, Vec::new()),
            None => (self.tools.docker.clone(), vec!["compose".to_owned()]),
        };
        all.extend(["--ansi", "never", "-p", &self.project].map(str::to_owned));
        for file in &self.files {
            all.extend(["-f".to_owned(), file.clone()]);
        }
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let mut command = Command::new(program, all).cwd(&self.directory).deadline(deadline);
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        command
    }

    /// Checks the files and answers the services that will run, by name.
    ///
    /// # Errors
    /// `compose_invalid` with compose's own words.
    pub async fn services(&self, cancel: &CancellationToken) -> Result<BTreeMap<String, Service>, Stop> {
        #[derive(Deserialize)]
        struct Resolved {
            #[serde(default)]
            services: BTreeMap<String, Service>,
        }
        let ended = self
            .command(&["config", "--format", "json"], Duration::from_secs(120))
            .capture(cancel)
            .await
            .map_err(|error| fault::of_process(error, Code::ComposeInvalid, "pull"))?;
        if ended.code != 0 {
            return Err(Fault::new(
                Code::ComposeInvalid,
                "pull",
                format!("docker compose does not accept the compose files: {}", ended.tail),
            )
            .exit(ended.code)
            .tail(ended.tail)
            .into());
        }
        let resolved: Resolved = serde_json::from_str(&ended.stdout)
            .map_err(|error| invalid(format!("docker compose answered oddly: {error}")))?;
        Ok(resolved.services)
    }

    /// The project's name.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }
}

fn invalid(message: String) -> Stop {
    Fault::new(Code::ComposeInvalid, "pull", message).into()
}
