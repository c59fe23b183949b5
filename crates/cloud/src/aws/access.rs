//! Whether the credentials work and suffice: who they are, and a dry run of every action.

use std::future::Future;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{IpPermission, IpRange, ResourceType};
use chrono::DateTime;
use stagely_domain::id::{ImageId, InstallationId, MachineId};
use stagely_domain::machine::{Arch, Role};

use crate::aws::actions::{self, Action};
use crate::aws::image::Image;
use crate::aws::machine::state;
use crate::aws::order::Order;
use crate::aws::refusal::denied;
use crate::aws::tags::{self, Tags};
use crate::aws::{Aws, regions};
use crate::{CloudError, ErrorKind, Result};

const DOING: &str = "check the access";

/// What lacks so far.
#[derive(Default)]
struct Findings {
    missing: Vec<String>,
    /// Refused on something that does not exist. A policy that allows an action only on what carries our tag refuses
    /// that too, so nothing follows.
    unproved: Vec<String>,
}

impl Findings {
    /// Notes what lacks, in the provider's own words where it has some: it may be `ec2:CreateTags`.
    fn note(&mut self, action: &Action, refused: &CloudError) {
        let name = denied(&refused.message).unwrap_or(action.permission);
        if !self.missing.iter().any(|known| known == name) {
            self.missing.push(name.to_owned());
        }
    }
}

impl Aws {
    /// Tries everything without effect.
    pub(super) async fn check(&self) -> Result<()> {
        let sts = &self.client.sts;
        let identity = sts.get_caller_identity().send();
        let identity = self.client.send(DOING, &actions::GET_CALLER_IDENTITY, identity).await;
        let identity = identity.map_err(|refused| regions::hinted(&self.config.region, refused))?;
        let mut findings = Findings::default();
        self.check_looks(&mut findings).await?;
        self.check_makes(&mut findings).await?;
        self.check_changes(&mut findings).await?;
        self.check_removals(&mut findings).await?;
        let optional = self.check_prices().await;
        let Findings { missing, unproved } = findings;
        if !unproved.is_empty() {
            tracing::info!("whether these are allowed shows on the first machine: {}", unproved.join(", "));
        }
        if missing.is_empty() {
            return Ok(());
        }
        let who = identity.arn().unwrap_or("the caller");
        let message = format!("{who} lacks {}{optional}", missing.join(", "));
        Err(CloudError::new(ErrorKind::Permission, DOING, message))
    }

    /// What is to be said of the one permission that nothing depends on.
    async fn check_prices(&self) -> &'static str {
        match self.try_prices().await {
            Err(error) if error.kind == ErrorKind::Permission => {
                tracing::warn!("{} is not allowed, which is optional: prices are not known", error.message);
                "; optional, for prices: pricing:GetProducts"
            }
            // Whatever else is wrong there, machines can be made.
            _ => "",
        }
    }

    async fn check_looks(&self, findings: &mut Findings) -> Result<()> {
        let (ec2, look) = (&self.client.ec2, &mut *findings);
        let d = true;
        self.try_out(look, &actions::DESCRIBE_INSTANCES, ec2.describe_instances().dry_run(d).send()).await?;
        self.try_out(look, &actions::DESCRIBE_INSTANCE_TYPES, ec2.describe_instance_types().dry_run(d).send()).await?;
        let offerings = ec2.describe_instance_type_offerings().dry_run(d).send();
        self.try_out(look, &actions::DESCRIBE_INSTANCE_TYPE_OFFERINGS, offerings).await?;
        self.try_out(look, &actions::DESCRIBE_IMAGES, ec2.describe_images().owners("self").dry_run(d).send()).await?;
        self.try_out(look, &actions::DESCRIBE_SUBNETS, ec2.describe_subnets().dry_run(d).send()).await?;
        let groups = ec2.describe_security_groups().dry_run(d).send();
        self.try_out(look, &actions::DESCRIBE_SECURITY_GROUPS, groups).await?;
        self.try_out(look, &actions::DESCRIBE_VOLUMES, ec2.describe_volumes().dry_run(d).send()).await?;
        let snapshots = ec2.describe_snapshots().owner_ids("self").dry_run(d).send();
        self.try_out(look, &actions::DESCRIBE_SNAPSHOTS, snapshots).await?;
        self.try_out(look, &actions::DESCRIBE_ADDRESSES, ec2.describe_addresses().dry_run(d).send()).await?;
        let interfaces = ec2.describe_network_interfaces().dry_run(d).send();
        self.try_out(look, &actions::DESCRIBE_NETWORK_INTERFACES, interfaces).await?;
        let spot = ec2.describe_spot_instance_requests().dry_run(d).send();
        self.try_out(look, &actions::DESCRIBE_SPOT_INSTANCE_REQUESTS, spot).await
    }

    /// A machine and a firewall as they will be asked for, as far as what they are made of can be read.
    async fn check_makes(&self, findings: &mut Findings) -> Result<()> {
        let tags = Tags {
            machine: MachineId::generate(),
            installation: InstallationId::generate(),
            environment: None,
            expires_at: DateTime::default(),
            port: 1,
            role: None,
        };
        let placeholder = Image { id: "ami-00000000000000000".to_owned(), root: "/dev/xvda".to_owned(), disk_gib: 0 };
        let image = self.known(findings, &actions::GET_PARAMETERS, self.image(Arch::Amd64, None).await)?;
        let subnets = self.known(findings, &actions::DESCRIBE_SUBNETS, self.subnets().await)?;
        let subnet = subnets.and_then(|subnets| subnets.into_iter().next());
        let (id, vpc) = subnet.map_or_else(Default::default, |subnet| (subnet.id, subnet.vpc));
        let order = Order {
            tags: &tags,
            attempt: 0,
            // Nothing is made of it, and every region knows it.
            instance_type: "t3.small",
            subnet: if id.is_empty() { "subnet-00000000000000000" } else { &id },
            group: None,
            image: image.as_ref().unwrap_or(&placeholder),
            wanted: None,
            disk_gib: self.config.disk_gib,
            user_data: "#cloud-config\n",
        };
        let ec2 = &self.client.ec2;
        self.try_out(findings, &actions::RUN_INSTANCES, order.request(ec2).dry_run(true).send()).await?;
        let group = ec2
            .create_security_group()
            .group_name("stagely-check")
            .description("Stagely: a dry run")
            .set_vpc_id(Some(vpc).filter(|vpc| !vpc.is_empty()))
            .tag_specifications(tags::shared(tags.installation, ResourceType::SecurityGroup, Role::Preview));
        self.try_out(findings, &actions::CREATE_SECURITY_GROUP, group.dry_run(true).send()).await
    }

    /// On a machine of ours, where there is one: only on that is a refusal certain.
    async fn check_changes(&self, findings: &mut Findings) -> Result<()> {
        let ours = aws_sdk_ec2::types::Filter::builder().name("tag-key").values(tags::INSTALLATION).build();
        let found = self.known(findings, &actions::DESCRIBE_INSTANCES, self.instances(DOING, vec![ours]).await)?;
        let living = found.unwrap_or_default().into_iter().find(|instance| state(instance) != "terminated");
        let (id, certain) = match living.as_ref().and_then(|instance| instance.instance_id()) {
            Some(id) => (id, true),
            None => ("i-00000000000000000", false),
        };
        let ec2 = &self.client.ec2;
        let mut tried = Findings::default();
        let look = &mut tried;
        self.try_out(look, &actions::START_INSTANCES, ec2.start_instances().instance_ids(id).dry_run(true).send())
            .await?;
        self.try_out(look, &actions::STOP_INSTANCES, ec2.stop_instances().instance_ids(id).dry_run(true).send())
            .await?;
        let terminate = ec2.terminate_instances().instance_ids(id).dry_run(true).send();
        self.try_out(look, &actions::TERMINATE_INSTANCES, terminate).await?;
        let image = ec2
            .create_image()
            .instance_id(id)
            .name("stagely-check")
            .set_tag_specifications(Some(tags::of_image(ImageId::generate(), InstallationId::generate())));
        self.try_out(look, &actions::CREATE_IMAGE, image.dry_run(true).send()).await?;
        let console = ec2.get_console_output().instance_id(id).dry_run(true).send();
        self.try_out(look, &actions::GET_CONSOLE_OUTPUT, console).await?;
        if certain {
            findings.missing.extend(tried.missing)
        } else {
            findings.unproved.extend(tried.missing)
        }
        Ok(())
    }

    /// On nothing that exists, so that no refusal is certain.
    async fn check_removals(&self, findings: &mut Findings) -> Result<()> {
        let ec2 = &self.client.ec2;
        let mut tried = Findings::default();
        let (look, none, d) = (&mut tried, "00000000000000000", true);
        let group = format!("sg-{none}");
        let rules = IpPermission::builder().ip_protocol("tcp").from_port(1).to_port(1);
        let rules = rules.ip_ranges(IpRange::builder().cidr_ip("192.0.2.0/32").build()).build();
        let admit = ec2.authorize_security_group_ingress().group_id(&group).ip_permissions(rules.clone());
        self.try_out(look, &actions::AUTHORIZE_INGRESS, admit.dry_run(d).send()).await?;
        let bar = ec2.revoke_security_group_ingress().group_id(&group).ip_permissions(rules);
        self.try_out(look, &actions::REVOKE_INGRESS, bar.dry_run(d).send()).await?;
        let remove = ec2.delete_security_group().group_id(group);
        self.try_out(look, &actions::DELETE_SECURITY_GROUP, remove.dry_run(d).send()).await?;
        let volume = ec2.delete_volume().volume_id(format!("vol-{none}"));
        self.try_out(look, &actions::DELETE_VOLUME, volume.dry_run(d).send()).await?;
        let snapshot = ec2.delete_snapshot().snapshot_id(format!("snap-{none}"));
        self.try_out(look, &actions::DELETE_SNAPSHOT, snapshot.dry_run(d).send()).await?;
        let image = ec2.deregister_image().image_id(format!("ami-{none}"));
        self.try_out(look, &actions::DEREGISTER_IMAGE, image.dry_run(d).send()).await?;
        let address = ec2.release_address().allocation_id(format!("eipalloc-{none}"));
        self.try_out(look, &actions::RELEASE_ADDRESS, address.dry_run(d).send()).await?;
        let interface = ec2.delete_network_interface().network_interface_id(format!("eni-{none}"));
        self.try_out(look, &actions::DELETE_NETWORK_INTERFACE, interface.dry_run(d).send()).await?;
        let spot = ec2.cancel_spot_instance_requests().spot_instance_request_ids("sir-00000000");
        self.try_out(look, &actions::CANCEL_SPOT_INSTANCE_REQUESTS, spot.dry_run(d).send()).await?;
        findings.unproved.extend(tried.missing);
        Ok(())
    }

    /// What was read, or none for want of a permission, which is noted.
    fn known<T>(&self, findings: &mut Findings, action: &Action, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind == ErrorKind::Permission => {
                if !findings.missing.iter().any(|name| error.message.starts_with(&**name)) {
                    findings.note(action, &error);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A dry run. Whatever else it is refused for, it was allowed first.
    async fn try_out<T, E>(
        &self,
        findings: &mut Findings,
        action: &Action,
        request: impl Future<Output = std::result::Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<()>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let Err(refused) = self.client.send(DOING, action, request).await else { return Ok(()) };
        match refused.error.kind {
            _ if refused.is("DryRunOperation") => Ok(()),
            ErrorKind::Permission => {
                findings.note(action, &refused.error);
                Ok(())
            }
            ErrorKind::Auth
            | ErrorKind::RateLimited { .. }
            | ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Protocol => Err(refused.into()),
            _ => Ok(()),
        }
    }
}
