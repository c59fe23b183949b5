//! The proof: a preview is live when its URL answers a visitor, through the public edge.

use std::time::Duration;

use stagely_domain::failure::{Code, Failure};
use stagely_store::Scope;
use stagely_store::environments::Environment;
use tokio::time::{Instant, sleep};

use crate::context::Context;
use crate::failures::failure;

/// How long a preview may take to answer through the edge once its agent says that it runs.
const PROOF: Duration = Duration::from_secs(30);

/// How often a proof looks whether anybody still wants to know.
const POLL: Duration = Duration::from_secs(1);

/// An answer below 500 that is not the edge's own.
pub async fn through_the_edge(context: &Context, host: &str) -> Result<(), Failure> {
    let until = Instant::now() + PROOF;
    let url = format!("http://{}/", context.config.edge_address);
    loop {
        let request = context.http.get(&url).header("host", host).timeout(Duration::from_secs(10));
        let last = match request.send().await {
            Ok(answer) if answer.headers().contains_key("x-stagely") => {
                "the edge does not reach the service yet".to_owned()
            }
            Ok(answer) if answer.status().is_server_error() => format!("GET / answered {}", answer.status()),
            Ok(_) => return Ok(()),
            Err(error) if error.is_timeout() => "GET / was not answered in ten seconds".to_owned(),
            Err(_) => "the edge cannot be reached".to_owned(),
        };
        if Instant::now() > until {
            return Err(failure(
                Code::ProofFailed,
                "prove",
                format!("the URL did not answer through the edge: {last}"),
            ));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Returns once something else is wished than what is being proved.
pub async fn overtaken(context: &Context, env: &Environment) {
    loop {
        sleep(POLL).await;
        // Without an answer of the database the proof goes on.
        let now = context.store.get_environment(&Scope::system("prove a preview"), env.id).await;
        if now.is_ok_and(|now| now.generation != env.generation) {
            return;
        }
    }
}
