//! When a project counts as running: services healthy, the HTTP check answered, exposed ports taken. [`judge`]
//! is a plain function of what the engine says; the rest asks.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use stagely_domain::failure::Code;
use stagely_proto::agent::{HealthCheck, Preview, ServiceStatus};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::listening;
use crate::docker::Container;
use crate::fault::{Fault, Stop};
use crate::machine::Machine;
use crate::{process, targets};

const PHASE: &str = "healthy";
const DEADLINE: Duration = Duration::from_secs(300);
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// A service that was started so often again is not coming up.
const MOST_RESTARTS: u32 = 5;

/// What the containers say.
#[derive(Debug)]
pub enum Verdict {
    /// All as it should be.
    Ready,
    /// Not yet, and what is missing.
    Waiting(Fault),
    /// It will not get there.
    Failed(Fault),
}

/// Judges the containers against the wish. `only` limits the judgement to one service.
#[must_use]
pub fn judge(containers: &[Container], only: &str) -> Verdict {
    let mut waiting = None;
    for container in containers {
        let service = container.service();
        if !only.is_empty() && service != only {
            continue;
        }
        let state = &container.state;
        let fault = |what: String| Fault::new(Code::Unhealthy, PHASE, what).of_service(service);
        match state.status.as_str() {
            "running" => match container.health() {
                "" | "healthy" => {}
                health => {
                    let output = last_probe(container);
                    let what = format!("{service} is {health}, not healthy{output}");
                    waiting.get_or_insert_with(|| fault(what));
                }
            },
            "exited" | "dead" => {
                if state.exit_code == 0 && container.is_one_shot() && only.is_empty() {
                    continue;
                }
                let memory = if state.oom_killed { ", out of memory" } else { "" };
                let what = format!("{service} ended with exit code {}{memory}", state.exit_code);
                return Verdict::Failed(fault(what).exit(state.exit_code));
            }
            status => {
                let what = format!("{service} is {status}");
                let fault = fault(what).exit(state.exit_code);
                if container.restart_count >= MOST_RESTARTS {
                    return Verdict::Failed(fault);
                }
                waiting.get_or_insert(fault);
            }
        }
    }
    if !only.is_empty() && !containers.iter().any(|c| c.service() == only) {
        let what = format!("there is no container of {only}");
        return Verdict::Failed(Fault::new(Code::Unhealthy, PHASE, what).of_service(only));
    }
    waiting.map_or(Verdict::Ready, Verdict::Waiting)
}

fn last_probe(container: &Container) -> String {
    let health = container.state.health.as_ref();
    let probes = health.and_then(|health| health.log.as_ref());
    match probes.and_then(|probes| probes.last()) {
        Some(probe) if !probe.output.trim().is_empty() => {
            format!("; its check said: {}", probe.output.trim())
        }
        _ => String::new(),
    }
}

/// Waits until the project runs, and answers its services.
///
/// # Errors
/// `unhealthy` or `nothing_listens`, about the service that keeps it, with the end of its log.
pub async fn wait(
    machine: &Machine,
    preview: &Preview,
    cancel: &CancellationToken,
) -> Result<Vec<ServiceStatus>, Stop> {
    let check = preview.health.clone().unwrap_or_default();
    let deadline = match check.timeout_secs {
        0 => DEADLINE,
        secs => Duration::from_secs(u64::from(secs)),
    };
    let give_up = Instant::now() + deadline;
    loop {
        let (containers, verdict) = match machine.engine.list_containers(&preview.project_name).await {
            Ok(containers) => {
                let verdict = look(&containers, preview, &check).await;
                (containers, verdict)
            }
            Err(error) => {
                let fault = Fault::new(Code::Internal, PHASE, error.to_string());
                (Vec::new(), Verdict::Waiting(fault))
            }
        };
        match verdict {
            Verdict::Ready => {
                let addresses = targets::resolve(&containers, &preview.exposures);
                machine.targets.replace(addresses);
                return Ok(listening::statuses(&containers, &preview.exposures).await);
            }
            Verdict::Failed(fault) => return Err(with_tail(machine, &containers, fault).await),
            Verdict::Waiting(mut fault) if Instant::now() >= give_up => {
                fault.message = format!("after {} s: {}", deadline.as_secs(), fault.message);
                return Err(with_tail(machine, &containers, fault).await);
            }
            Verdict::Waiting(_) => {}
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(Stop::Cancelled),
            () = tokio::time::sleep(machine.config.timing.poll) => {}
        }
    }
}

/// Containers first, then the HTTP check, then the exposed ports: the first thing missing is the verdict.
async fn look(containers: &[Container], preview: &Preview, check: &HealthCheck) -> Verdict {
    match judge(containers, &check.service) {
        Verdict::Ready => {}
        other => return other,
    }
    if !check.path.is_empty() {
        let first = preview.exposures.first();
        let service = match check.service.as_str() {
            "" => first.map_or("", |exposure| exposure.service.as_str()),
            name => name,
        };
        let port = match check.port {
            0 => preview
                .exposures
                .iter()
                .find(|exposure| exposure.service == service)
                .map_or(80, |exposure| exposure.port),
            port => port,
        };
        let address = targets::address_of(containers, service)
            .zip(u16::try_from(port).ok())
            .map(|(address, port)| SocketAddr::new(address, port));
        let answer = match address {
            Some(address) => probe(address, &check.path).await,
            None => Err(format!("{service} has no address")),
        };
        if let Err(why) = answer {
            let what = format!("{service} did not answer {} on port {port}: {why}", check.path);
            let fault = Fault::new(Code::Unhealthy, PHASE, what).of_service(service);
            return Verdict::Waiting(fault);
        }
    }
    for exposure in &preview.exposures {
        let service = exposure.service.as_str();
        let address = targets::address_of(containers, service)
            .zip(u16::try_from(exposure.port).ok())
            .map(|(address, port)| SocketAddr::new(address, port));
        let taken = match address {
            Some(address) => listening::answers(address).await,
            None => false,
        };
        if !taken {
            let why = containers
                .iter()
                .find(|container| container.service() == service && container.is_running())
                .map_or_else(|| "its container does not run".to_owned(), listening::explain);
            let what = format!("nothing listens on port {} of {service}: {why}", exposure.port);
            let fault = Fault::new(Code::NothingListens, PHASE, what).of_service(service);
            return Verdict::Waiting(fault);
        }
    }
    Verdict::Ready
}

/// Asks for `path`; anything below 400 is an answer.
async fn probe(address: SocketAddr, path: &str) -> Result<(), String> {
    let ask = async {
        let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let request = http::Request::get(path)
            .header(http::header::HOST, address.to_string())
            .header(http::header::USER_AGENT, "stagely-health-check")
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        // The connection is driven here, so that it ends with the request.
        tokio::select! {
            answer = client.send_request(request) => {
                let status = answer.map_err(|e| e.to_string())?.status();
                if status.as_u16() < 400 { Ok(()) } else { Err(format!("HTTP {status}")) }
            }
            ended = connection => Err(match ended {
                Err(error) => error.to_string(),
                Ok(()) => "the connection was closed".to_owned(),
            }),
        }
    };
    tokio::time::timeout(REQUEST_DEADLINE, ask)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", REQUEST_DEADLINE.as_secs())))
}

/// After `docker compose up` failed: the service to blame, with the end of its log.
pub async fn blame(machine: &Machine, project: &str, code: i32, tail: String) -> Stop {
    let mut fault = Fault::new(Code::ComposeFailed, "up", "docker compose up failed").exit(code);
    let containers = machine.engine.list_containers(project).await.unwrap_or_default();
    let broken = |container: &&Container| {
        let state = &container.state;
        let ended = matches!(state.status.as_str(), "exited" | "dead") && state.exit_code != 0;
        ended || !state.error.is_empty() || container.health() == "unhealthy"
    };
    let named = |container: &&Container| tail.contains(container.name.trim_start_matches('/'));
    let culprit = containers.iter().filter(broken).find(named).or_else(|| containers.iter().find(broken));
    if let Some(container) = culprit {
        fault = fault.of_service(container.service());
        if container.state.exit_code != 0 {
            fault = fault.exit(container.state.exit_code);
        }
        if container.health() == "unhealthy" {
            fault.code = Code::Unhealthy;
        }
        if !container.state.error.is_empty() {
            fault.message = format!("{}: {}", fault.message, container.state.error);
        }
    }
    // Compose's last line is the reason in its own words.
    if let Some(line) = tail.lines().last() {
        fault.message = format!("{}: {line}", fault.message);
    }
    let blamed = with_tail(machine, &containers, fault).await;
    match blamed {
        Stop::Failed(fault) if fault.log_tail.is_empty() => (*fault).tail(tail).into(),
        other => other,
    }
}

async fn with_tail(machine: &Machine, containers: &[Container], fault: Fault) -> Stop {
    let container = containers.iter().find(|container| container.service() == fault.service);
    let tail = match container {
        Some(container) => machine.engine.log_tail(&container.id, process::TAIL_LINES).await.unwrap_or_default(),
        None => String::new(),
    };
    fault.tail(tail.trim_end()).into()
}

#[cfg(test)]
mod tests;
