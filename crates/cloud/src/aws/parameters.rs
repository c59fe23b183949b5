//! Public parameters of SSM, which say what the newest image is.

use std::sync::Arc;

use aws_credential_types::Credentials;
use serde_json::json;
use stagely_domain::clock::Clock;

use crate::aws::Config;
use crate::aws::actions::GET_PARAMETERS;
use crate::aws::json::{Json, garbled};
use crate::{CloudError, ErrorKind, Result};

const TARGET: &str = "AmazonSSM.GetParameters";

pub(super) struct Parameters(Json);

impl Parameters {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let region = &config.region;
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        Json::new(config, "ssm", region, &format!("https://ssm.{region}.{domain}"), clock).map(Self)
    }

    /// The value of one.
    pub(super) async fn get(&self, doing: &'static str, credentials: Credentials, name: &str) -> Result<String> {
        let body = json!({"Names": [name]});
        let answer = self.0.call(doing, &GET_PARAMETERS, TARGET, credentials, &body).await?;
        let found = answer["Parameters"].as_array().ok_or_else(|| garbled(doing, &GET_PARAMETERS))?;
        let value =
            found.iter().find(|parameter| parameter["Name"] == name).and_then(|parameter| parameter["Value"].as_str());
        value.map(str::to_owned).ok_or_else(|| {
            CloudError::new(ErrorKind::Invalid, doing, format!("there is no parameter {name} in this region"))
        })
    }
}
