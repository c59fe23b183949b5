//! Reading an answer's head. Whatever is not plainly right is refused: the bytes are a stranger's.

use bytes::{Buf, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::upstream::UpstreamError;

const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 128;

/// How an answer's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFraming {
    None,
    Length(u64),
    Chunked,
    /// With the connection.
    Eof,
}

/// An answer without its body.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    pub fields: HeaderMap,
    pub framing: AnswerFraming,
    /// Whether the connection may be used again.
    pub keeps: bool,
}

/// Reads the final head; interim ones (1xx but 101) are skipped. What follows the head stays in `buffer`.
pub async fn read_head<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut BytesMut,
    method: &Method,
) -> Result<Head, UpstreamError> {
    loop {
        if let Some(end) = find_end(buffer)? {
            let head = parse(&buffer[..end], method)?;
            buffer.advance(end);
            if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                continue;
            }
            return Ok(head);
        }
        if buffer.len() > MAX_HEAD {
            return Err(UpstreamError::Malformed("the head is too long"));
        }
        match reader.read_buf(buffer).await {
            Ok(0) | Err(_) => return Err(UpstreamError::Closed),
            Ok(_) => {}
        }
    }
}

/// Where the head ends. Lines end with CR LF and nothing else (RFC 9112, section 2.2).
fn find_end(buffer: &BytesMut) -> Result<Option<usize>, UpstreamError> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let head = &buffer[..end.unwrap_or(buffer.len())];
    let bare = head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'));
    if bare { Err(UpstreamError::Malformed("a line ends without CR")) } else { Ok(end) }
}

fn parse(bytes: &[u8], method: &Method) -> Result<Head, UpstreamError> {
    let mut storage = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut storage);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(UpstreamError::Malformed("the head cannot be read")),
    }
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(UpstreamError::Malformed("the status is not a number"))?;
    let mut fields = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(UpstreamError::Malformed("a field is not valid")) };
        fields.append(name, value);
    }
    let framing = framing(status, &fields, method)?;
    let closes = fields.get_all(CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|list| list.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")))
    });
    let keeps = !closes && response.version == Some(1) && framing != AnswerFraming::Eof;
    Ok(Head { status, fields, framing, keeps })
}

/// RFC 9112, section 6.3, and stricter: a message has one length, said once.
fn framing(status: StatusCode, fields: &HeaderMap, method: &Method) -> Result<AnswerFraming, UpstreamError> {
    let (mut lengths, mut codings) = (fields.get_all(CONTENT_LENGTH).iter(), fields.get_all(TRANSFER_ENCODING).iter());
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() || (length.is_some() && coding.is_some()) {
        return Err(UpstreamError::Malformed("it has more than one length"));
    }
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let framing = match (length, coding) {
        (_, Some(coding)) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => AnswerFraming::Chunked,
        (_, Some(_)) => return Err(UpstreamError::Malformed("its transfer coding is not known")),
        (Some(length), None) => {
            let digits =
                length.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|text| text.parse().ok());
            AnswerFraming::Length(length.ok_or(UpstreamError::Malformed("its length is not a number"))?)
        }
        (None, None) => AnswerFraming::Eof,
    };
    Ok(if bodiless { AnswerFraming::None } else { framing })
}

#[cfg(test)]
mod tests {
    use super::{AnswerFraming, read_head};
    use bytes::BytesMut;
    use http::Method;

    async fn read(text: &str, method: Method) -> Result<AnswerFraming, String> {
        let mut buffer = BytesMut::new();
        let head = read_head(&mut text.as_bytes(), &mut buffer, &method).await;
        head.map(|head| head.framing).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn framing_is_one_thing_or_refused() {
        let good = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", AnswerFraming::Length(5)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", AnswerFraming::Chunked),
            ("HTTP/1.1 200 OK\r\n\r\n", AnswerFraming::Eof),
            ("HTTP/1.1 204 No Content\r\n\r\n", AnswerFraming::None),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", AnswerFraming::Length(0)),
        ];
        for (text, wanted) in good {
            assert_eq!(read(text, Method::GET).await, Ok(wanted), "{text}");
        }
        assert_eq!(read("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Method::HEAD).await, Ok(AnswerFraming::None));
        for bad in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\ncontent-length: 5\n\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(read(bad, Method::GET).await.is_err(), "{bad:?}");
        }
    }
}
