//! Posts at the git host: each is made to show what it should. Key: the post's id.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use stagely_domain::id::PrPostId;
use stagely_forge::{Check, Deployment, ErrorKind, ForgeError, Repo};
use stagely_reconcile::{Claim, ErrorClass, Reconciler, Step, StepError};
use stagely_store::Scope;
use stagely_store::posts::Kind;
use stagely_store::work::kind;

use crate::context::{Context, forge_error, store_error};

pub struct Posts(pub Arc<Context>);

#[derive(Deserialize)]
struct Comment {
    body: String,
}

#[async_trait]
impl Reconciler for Posts {
    const KIND: &'static str = kind::POST;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError> {
        let doing = "post to the git host";
        let (context, id) = (&self.0, PrPostId::from_uuid(claim.fence.key));
        let post = context.store.get_post(id).await.map_err(store_error(doing))?;
        if post.posted_seq >= post.wanted_seq {
            return Ok(Step::Done);
        }
        let env =
            context.store.get_environment(&Scope::system(doing), post.environment).await.map_err(store_error(doing))?;
        let repo = context.store.get_repo(&Scope::system(doing), env.project).await.map_err(store_error(doing))?;
        let repo: Repo = repo.parse().map_err(|error| StepError::new(ErrorClass::Permanent, doing, error))?;
        let (forge, known) = (&context.forge, post.remote_id.as_deref());
        let malformed = |error: serde_json::Error| StepError::new(ErrorClass::Permanent, doing, error);
        let outcome = match post.kind {
            // A late word of an earlier environment is not put over what is said of the present one.
            Kind::Comment if context.store.has_successor(&env).await.map_err(store_error(doing))? => Ok(None),
            Kind::Comment => {
                let wanted: Comment = serde_json::from_value(post.wanted).map_err(malformed)?;
                let marker = format!("<!-- stagely:{} -->", env.project);
                forge.ensure_comment(&repo, env.pr.number, &marker, known, &wanted.body).await.map(Some)
            }
            Kind::Check => {
                let wanted: Check = serde_json::from_value(post.wanted).map_err(malformed)?;
                forge.ensure_check(&repo, &post.sha, known, &wanted).await.map(Some)
            }
            Kind::Deployment => {
                let wanted: Deployment = serde_json::from_value(post.wanted).map_err(malformed)?;
                forge.ensure_deployment(&repo, &post.sha, known, &wanted).await.map(Some)
            }
        };
        let remote = match outcome {
            Ok(remote) => remote,
            // A token without the right to checks must not keep the comment from being posted, nor be tried for ever.
            Err(ForgeError { kind: ErrorKind::Auth, message, .. }) if post.kind != Kind::Comment => {
                let doing = "post a check or a deployment";
                return Err(StepError::new(ErrorClass::Permanent, doing, message));
            }
            // A locked conversation or a repository that is gone may stay so: it parks in the end.
            Err(error) if matches!(error.kind, ErrorKind::Auth | ErrorKind::NotFound) => {
                return Err(StepError { may_park: true, ..forge_error(doing)(error) });
            }
            Err(error) => return Err(forge_error(doing)(error)),
        };
        let tx = context.store.fenced(&claim.fence).await.map_err(store_error(doing))?;
        tx.posted(id, post.wanted_seq, remote.as_deref()).await.map_err(store_error(doing))?;
        tx.commit().await.map_err(store_error(doing))?;
        Ok(Step::Done)
    }
}
