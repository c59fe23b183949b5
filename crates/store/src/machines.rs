//! Machines: the ledger of everything that may exist at a provider. A row is committed before the provider
//! is called, and closed only when the provider shows that the machine is gone. Updated by the orchestrator.

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder};
use stagely_domain::cost::Meter;
use stagely_domain::failure::Failure;
use stagely_domain::id::{CloudAccountId, EnvironmentId, ImageId, MachineId, ProjectId, TeamId};
use stagely_domain::machine::{Arch, Role, Size, State};
use stagely_domain::offering::Offering;

use crate::entity::machines;
use crate::{Outcome, Power, Presence, Result, Store, StoreError, Tx, word};

/// One machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Its id: the provider's idempotency token, name and tag.
    pub id: MachineId,
    /// The team that owns it, and pays for it.
    pub team: TeamId,
    /// The project that it serves; `None` when an image is made of it.
    pub project: Option<ProjectId>,
    /// The environment that it runs; `None` for builders, and when an image is made of it.
    pub environment: Option<EnvironmentId>,
    /// The cloud account that it is made in.
    pub account: CloudAccountId,
    /// What it is used for.
    pub role: Role,
    /// The size class asked for; `offering` is the provider's type that is bought for it.
    pub size: Size,
    /// The processor architecture asked for.
    pub arch: Arch,
    /// Whether it is to exist.
    pub desired: Presence,
    /// Whether it is to run.
    pub power: Power,
    /// How far it has come from intended to gone.
    pub state: State,
    /// Where it may be made, in the provider's names, the best first; empty for the account's own order.
    pub locations: Vec<String>,
    /// The provider's type and place that it is created as; `None` where a provider has no catalogue, or before the
    /// choice.
    pub offering: Option<Offering>,
    /// What it was refused with, in the order in which it was tried: types without room, and images that it could not
    /// boot.
    pub tried: Vec<String>,
    /// How often its creation was refused in a way that may pass.
    pub refusals: u32,
    /// The golden image that it is created with; `None` for the one of the account's settings, or before the choice.
    pub image: Option<BootImage>,
    /// The provider's id of it, once the provider has answered.
    pub provider_id: Option<String>,
    /// `ip:port` of its ingress, once the provider has told it.
    pub address: Option<String>,
    /// Why it could not be had, or was lost.
    pub failure: Option<Failure>,
    /// Until when a create call may still take effect.
    pub create_deadline: Option<DateTime<Utc>>,
    /// The end that its tag at the provider says, for whoever clears up an account whose control plane is gone. A
    /// running control plane does not go by it.
    pub expires_at: DateTime<Utc>,
    /// When it was wished for.
    pub intended_at: DateTime<Utc>,
    /// When the provider had it.
    pub placed_at: Option<DateTime<Utc>>,
    /// When its agent enrolled.
    pub enrolled_at: Option<DateTime<Utc>>,
    /// When the provider was last asked to put it to sleep; `None` once it runs again and nothing of that can follow.
    pub sleep_asked_at: Option<DateTime<Utc>>,
    /// When it was wished away.
    pub drop_at: Option<DateTime<Utc>>,
    /// When it was seen gone.
    pub gone_at: Option<DateTime<Utc>>,
}

/// A golden image that a machine is created with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootImage {
    /// Its id.
    pub id: ImageId,
    /// The provider's name of it.
    pub reference: String,
}

impl BootImage {
    /// How it is written in [`Machine::tried`].
    #[must_use]
    pub fn tried(&self) -> String {
        format!("image {}", self.id)
    }
}

/// A machine to be.
#[derive(Debug, Clone)]
pub struct NewMachine {
    /// Its id, chosen by the caller.
    pub id: MachineId,
    /// The team that owns it, and pays for it.
    pub team: TeamId,
    /// The project that it serves; `None` when an image is made of it.
    pub project: Option<ProjectId>,
    /// The environment that it runs; `None` for builders, and when an image is made of it.
    pub environment: Option<EnvironmentId>,
    /// The cloud account that it is made in.
    pub account: CloudAccountId,
    /// What it is used for.
    pub role: Role,
    /// The size class asked for.
    pub size: Size,
    /// The processor architecture asked for.
    pub arch: Arch,
    /// Where it may be made, in the provider's names, the best first; empty for the account's own order.
    pub locations: Vec<String>,
    /// The time from now to [`Machine::expires_at`].
    pub lifetime: TimeDelta,
}

impl Store {
    /// One machine.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or the database's error.
    pub async fn get_machine(&self, id: MachineId) -> Result<Machine> {
        let found = machines::Entity::find_by_id(id.uuid()).one(&self.db).await.map_err(reading)?;
        found.map(machine).transpose()?.ok_or(StoreError::NotFound("machine"))
    }

    /// The machines of an environment that are not gone, oldest first.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_environment_machines(&self, env: EnvironmentId) -> Result<Vec<Machine>> {
        self.list(Condition::all().add(machines::Column::EnvId.eq(env.uuid()))).await
    }

    /// The newest machine of an environment, also one that is gone; `None` when it never had one.
    ///
    /// # Errors
    /// The database's error.
    pub async fn newest_environment_machine(&self, env: EnvironmentId) -> Result<Option<Machine>> {
        let of_env = machines::Entity::find().filter(machines::Column::EnvId.eq(env.uuid()));
        let newest = of_env.order_by_desc(machines::Column::Id).one(&self.db).await.map_err(reading)?;
        newest.map(machine).transpose()
    }

    /// The builders of a project that are not gone, oldest first.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_project_builders(&self, project: ProjectId) -> Result<Vec<Machine>> {
        let of_project = machines::Column::ProjectId.eq(project.uuid());
        self.list(Condition::all().add(of_project).add(machines::Column::Role.eq(word::text(Role::Builder)))).await
    }

    /// The machines of an account that are not gone, oldest first.
    ///
    /// # Errors
    /// The database's error.
    pub async fn list_account_machines(&self, account: CloudAccountId) -> Result<Vec<Machine>> {
        self.list(Condition::all().add(machines::Column::AccountId.eq(account.uuid()))).await
    }

    async fn list(&self, filter: Condition) -> Result<Vec<Machine>> {
        let rows = machines::Entity::find()
            .filter(filter)
            .filter(machines::Column::GoneAt.is_null())
            .order_by_asc(machines::Column::Id)
            .all(&self.db)
            .await
            .map_err(reading)?;
        rows.into_iter().map(machine).collect()
    }
}

impl Tx {
    /// Records the wish for a machine. Stale, with nothing written, when the id was used before or the account is
    /// deleted.
    ///
    /// # Errors
    /// The database's error.
    pub async fn insert_machine(&self, new: &NewMachine) -> Result<Outcome> {
        let rows = self
            .run(
                "add a machine",
                "INSERT INTO machines \
                 (id, team_id, project_id, env_id, account_id, role, size, arch, locations, state, expires_at) \
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, 'intended', now() + make_interval(secs => $10) \
                 FROM cloud_providers WHERE id = $5 AND deleted_at IS NULL FOR SHARE \
                 ON CONFLICT (id) DO NOTHING",
                [
                    new.id.uuid().into(),
                    new.team.uuid().into(),
                    new.project.map(ProjectId::uuid).into(),
                    new.environment.map(EnvironmentId::uuid).into(),
                    new.account.uuid().into(),
                    word::text(new.role).into(),
                    word::text(new.size).into(),
                    word::text(new.arch).into(),
                    serde_json::json!(new.locations).into(),
                    new.lifetime.num_seconds().into(),
                ],
            )
            .await?;
        Ok(Outcome::of(rows))
    }

    /// Records that the call is about to be made that creates it as `offering` with `image`, and may take effect until
    /// `deadline` from now. Stale when the machine is wished away or placed already, and when the image is not wanted
    /// any more, unless the machine was asked for with it before.
    ///
    /// # Errors
    /// The database's error.
    pub async fn machine_creating(
        &self,
        id: MachineId,
        deadline: TimeDelta,
        offering: Option<&Offering>,
        image: Option<&BootImage>,
    ) -> Result<Outcome> {
        if let Some(image) = image
            && !self.holds_image(image.id, id).await?
        {
            return Ok(Outcome::Stale);
        }
        let sql = "UPDATE machines SET state = 'creating', create_deadline = now() + make_interval(secs => $2), \
                   offering = $3, image_id = $4, image = $5 \
                   WHERE id = $1 AND desired = 'present' AND state IN ('intended', 'creating')";
        let offering = offering.map(|offering| word::encode("machines", id, "offering", offering)).transpose()?;
        let values = [
            id.uuid().into(),
            deadline.num_seconds().into(),
            offering.into(),
            image.map(|image| image.id.uuid()).into(),
            image.map(|image| image.reference.clone()).into(),
        ];
        Ok(Outcome::of(self.run("record a create", sql, values).await?))
    }

    /// Records that there was certainly no room for it as `offering`: another one may be tried. Stale when that is
    /// recorded already, or the machine is not being created.
    ///
    /// # Errors
    /// The database's error.
    pub async fn machine_refused(&self, id: MachineId, offering: &Offering) -> Result<Outcome> {
        self.refused_with(id, offering.to_string()).await
    }

    /// Records that the provider would not boot it from `image`: it is asked for anew, with another or none. Stale as
    /// [`Tx::machine_refused`].
    ///
    /// # Errors
    /// The database's error.
    pub async fn machine_image_refused(&self, id: MachineId, image: &BootImage) -> Result<Outcome> {
        self.refused_with(id, image.tried()).await
    }

    async fn refused_with(&self, id: MachineId, what: String) -> Result<Outcome> {
        let sql = "UPDATE machines SET tried = tried || to_jsonb($2::text), \
                   offering = NULL, image_id = NULL, image = NULL \
                   WHERE id = $1 AND state = 'creating' AND NOT tried @> to_jsonb($2::text)";
        Ok(Outcome::of(self.run("record a refused create", sql, [id.uuid().into(), what.into()]).await?))
    }

    /// Counts a refusal to make it that may pass. Stale when the machine is wished away or placed already.
    ///
    /// # Errors
    /// The database's error.
    pub async fn machine_not_made(&self, id: MachineId) -> Result<Outcome> {
        let sql = "UPDATE machines SET refusals = refusals + 1 \
                   WHERE id = $1 AND desired = 'present' AND state IN ('intended', 'creating')";
        Ok(Outcome::of(self.run("count a refused create", sql, [id.uuid().into()]).await?))
    }

    /// Records the id and address (`ip:port`) that the provider answered, and that it bills the machine from its first
    /// answer on. Stale when the machine is gone.
    ///
    /// # Errors
    /// The database's error.
    pub async fn machine_placed(&self, id: MachineId, provider_id: &str, address: Option<&str>) -> Result<Outcome> {
        let sql = "UPDATE machines SET provider_id = $2, address = coalesce($3, address), \
                   placed_at = coalesce(placed_at, now()), \
                   billed_from = CASE WHEN placed_at IS NULL THEN now() ELSE billed_from END, \
                   state = CASE WHEN state = 'creating' THEN 'booting' ELSE state END \
                   WHERE id = $1 AND gone_at IS NULL";
        let values = [id.uuid().into(), provider_id.into(), address.into()];
        Ok(Outcome::of(self.run("record a placed machine", sql, values).await?))
    }

    /// Records that the provider has a machine of which it never said so: it was on its way out by then. Stale when it
    /// was placed before, or is gone.
    ///
    /// # Errors
    /// The database's error.
    pub async fn machine_shown(&self, id: MachineId) -> Result<Outcome> {
        let sql = "UPDATE machines SET placed_at = now(), billed_from = now() \
                   WHERE id = $1 AND placed_at IS NULL AND gone_at IS NULL";
        Ok(Outcome::of(self.run("record a machine that is shown", sql, [id.uuid().into()]).await?))
    }

    /// Records a state that needs no other fact, and what the step means for what the machine costs. Stale when the
    /// machine is not in the state `from`.
    ///
    /// # Errors
    /// The database's error; [`StoreError::Illegal`] when the domain knows no such step.
    pub async fn set_machine_state(&self, id: MachineId, from: State, to: State) -> Result<Outcome> {
        if !from.may_become(to) {
            return Err(StoreError::Illegal { table: "machines", from: word::text(from), to: word::text(to) });
        }
        let sql = "UPDATE machines SET state = $3, \
                   enrolled_at = CASE WHEN $3 = 'enrolled' THEN coalesce(enrolled_at, now()) ELSE enrolled_at END, \
                   gone_at = CASE WHEN $3 = 'gone' THEN now() ELSE gone_at END \
                   WHERE id = $1 AND state = $2";
        let values = [id.uuid().into(), word::text(from).into(), word::text(to).into()];
        let outcome = Outcome::of(self.run("record a machine's state", sql, values).await?);
        match Meter::of(from, to) {
            Meter::Starts if outcome == Outcome::Written => self.start_meter(id).await?,
            Meter::Stops if outcome == Outcome::Written => self.stop_meter(id).await?,
            _ => {}
        }
        Ok(outcome)
    }

    /// Wishes a machine away, with the reason when it is a failure; the first one stays. Stale when that was wished
    /// before.
    ///
    /// # Errors
    /// The database's error.
    pub async fn drop_machine(&self, id: MachineId, failure: Option<&Failure>) -> Result<Outcome> {
        let failure = failure.map(|failure| word::encode("machines", id, "failure", failure)).transpose()?;
        let sql = "UPDATE machines SET desired = 'absent', drop_at = now(), failure = coalesce(failure, $2) \
                   WHERE id = $1 AND desired = 'present'";
        Ok(Outcome::of(self.run("wish a machine away", sql, [id.uuid().into(), failure.into()]).await?))
    }

    /// Wishes a machine to run or to sleep. Stale when that is wished already, or it is to be removed.
    ///
    /// # Errors
    /// The database's error.
    pub async fn wish_machine_power(&self, id: MachineId, power: Power) -> Result<Outcome> {
        let sql =
            "UPDATE machines SET desired_power = $2 WHERE id = $1 AND desired_power <> $2 AND desired = 'present'";
        Ok(Outcome::of(self.run("wish for machine power", sql, [id.uuid().into(), word::text(power).into()]).await?))
    }

    /// Remembers that the provider is asked to put the machine to sleep, or that nothing can follow from that any more.
    ///
    /// # Errors
    /// The database's error.
    pub async fn note_machine_sleep(&self, id: MachineId, asked: bool) -> Result<()> {
        let sql = "UPDATE machines SET sleep_asked_at = CASE WHEN $2 THEN now() END WHERE id = $1";
        self.run("note that a machine is to sleep", sql, [id.uuid().into(), asked.into()]).await?;
        Ok(())
    }
}

fn reading(source: sea_orm::DbErr) -> StoreError {
    StoreError::query("read machines", source)
}

fn machine(row: machines::Model) -> Result<Machine> {
    let id = MachineId::from_uuid(row.id);
    Ok(Machine {
        id,
        team: TeamId::from_uuid(row.team_id),
        project: row.project_id.map(ProjectId::from_uuid),
        environment: row.env_id.map(EnvironmentId::from_uuid),
        account: CloudAccountId::from_uuid(row.account_id),
        role: word::parse("machines", id, "role", &row.role)?,
        size: word::parse("machines", id, "size", &row.size)?,
        arch: word::parse("machines", id, "arch", &row.arch)?,
        desired: word::parse("machines", id, "desired", &row.desired)?,
        power: word::parse("machines", id, "desired_power", &row.desired_power)?,
        state: word::parse("machines", id, "state", &row.state)?,
        locations: word::json("machines", id, "locations", Some(row.locations))?.unwrap_or_default(),
        offering: word::json("machines", id, "offering", row.offering)?,
        tried: word::json("machines", id, "tried", Some(row.tried))?.unwrap_or_default(),
        refusals: u32::try_from(row.refusals).unwrap_or(u32::MAX),
        image: row.image_id.zip(row.image).map(|(id, reference)| BootImage { id: ImageId::from_uuid(id), reference }),
        provider_id: row.provider_id,
        address: row.address,
        failure: word::json("machines", id, "failure", row.failure)?,
        create_deadline: row.create_deadline,
        expires_at: row.expires_at,
        intended_at: row.intended_at,
        placed_at: row.placed_at,
        enrolled_at: row.enrolled_at,
        sleep_asked_at: row.sleep_asked_at,
        drop_at: row.drop_at,
        gone_at: row.gone_at,
    })
}
