//! What the agent and the hub must agree on beside the frames: where the agent asks, and how a connection begins.
//! Agents of older versions keep to these, so a value here never changes; another version gets names of its own.

/// `POST`: an enrolment token against a credential.
pub const ENROL_PATH: &str = "/agent/v1/enrol";

/// `GET`: the upgrade to the WebSocket on which the frames go.
pub const CONNECT_PATH: &str = "/agent/v1/connect";

/// The WebSocket's subprotocol.
pub const SUBPROTOCOL: &str = "stagely.agent.v1";

/// `Hello.protocol`.
pub const PROTOCOL: u32 = 1;

/// What the agent signs for its `Hello`: this, then the nonce of the challenge, then its machine's id as text.
pub const SIGNATURE_CONTEXT: &[u8] = b"stagely.agent.v1";
