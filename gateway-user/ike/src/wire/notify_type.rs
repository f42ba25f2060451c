//! Notify Message Types.

code_points! {
    /// Notify Message Types: below 16384 errors, above them status (RFC 7296 §3.10.1).
    NotifyType(u16) {
        /// Data: the payload type, one octet.
        UNSUPPORTED_CRITICAL_PAYLOAD = 1,
        /// About the SPIs in the header; there is no data (RFC 7296 §1.5).
        INVALID_IKE_SPI = 4,
        /// RFC 7296 §2.5.
        INVALID_MAJOR_VERSION = 5,
        /// Only in an encrypted answer to an authentic message.
        INVALID_SYNTAX = 7,
        /// Data: the message id. Only ever in an INFORMATIONAL request (RFC 7296 §2.3).
        INVALID_MESSAGE_ID = 9,
        /// Data: the SPI of the packet that could not be decrypted (RFC 7296 §1.5).
        INVALID_SPI = 11,
        /// RFC 7296 §2.7.
        NO_PROPOSAL_CHOSEN = 14,
        /// Data: the method that is wanted, two octets (RFC 7296 §1.3).
        INVALID_KE_PAYLOAD = 17,
        /// RFC 7296 §2.21.2.
        AUTHENTICATION_FAILED = 24,
        /// RFC 7296 §2.9.
        SINGLE_PAIR_REQUIRED = 34,
        /// RFC 7296 §1.3.
        NO_ADDITIONAL_SAS = 35,
        /// RFC 7296 §2.19.
        INTERNAL_ADDRESS_FAILURE = 36,
        /// RFC 7296 §2.19.
        FAILED_CP_REQUIRED = 37,
        /// RFC 7296 §2.9.
        TS_UNACCEPTABLE = 38,
        /// Data: the packet's selectors.
        INVALID_SELECTORS = 39,
        /// RFC 4555.
        UNACCEPTABLE_ADDRESSES = 40,
        /// RFC 4555.
        UNEXPECTED_NAT_DETECTED = 41,
        /// RFC 5026.
        USE_ASSIGNED_HOA = 42,
        /// RFC 7296 §2.25.
        TEMPORARY_FAILURE = 43,
        /// The SPI field names the SA.
        CHILD_SA_NOT_FOUND = 44,
        /// RFC 9838.
        INVALID_GROUP_ID = 45,
        /// RFC 9838.
        AUTHORIZATION_FAILED = 46,
        /// RFC 9370.
        STATE_NOT_FOUND = 47,
        /// RFC 9611.
        TS_MAX_QUEUE = 48,

        /// RFC 7296 §2.4.
        INITIAL_CONTACT = 16384,
        /// RFC 7296 §3.10.1.
        SET_WINDOW_SIZE = 16385,
        /// RFC 7296 §2.9.2.
        ADDITIONAL_TS_POSSIBLE = 16386,
        /// RFC 7296 §2.22.
        IPCOMP_SUPPORTED = 16387,
        /// Data: SHA-1 of SPIs, address and port (RFC 7296 §2.23).
        NAT_DETECTION_SOURCE_IP = 16388,
        /// Data: SHA-1 of SPIs, address and port (RFC 7296 §2.23).
        NAT_DETECTION_DESTINATION_IP = 16389,
        /// Data: 1–64 octets (RFC 7296 §2.6).
        COOKIE = 16390,
        /// RFC 7296 §1.3.1.
        USE_TRANSPORT_MODE = 16391,
        /// RFC 7296 §3.10.1.
        HTTP_CERT_LOOKUP_SUPPORTED = 16392,
        /// The SPI field names the SA (RFC 7296 §1.3.3).
        REKEY_SA = 16393,
        /// RFC 7296 §1.3.1.
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
        /// RFC 7296 §1.3.1.
        NON_FIRST_FRAGMENTS_ALSO = 16395,
        /// RFC 4555.
        MOBIKE_SUPPORTED = 16396,
        /// Data: four octets (RFC 4555).
        ADDITIONAL_IP4_ADDRESS = 16397,
        /// Data: sixteen octets (RFC 4555).
        ADDITIONAL_IP6_ADDRESS = 16398,
        /// RFC 4555.
        NO_ADDITIONAL_ADDRESSES = 16399,
        /// RFC 4555.
        UPDATE_SA_ADDRESSES = 16400,
        /// Data: 8–64 octets (RFC 4555).
        COOKIE2 = 16401,
        /// RFC 4555.
        NO_NATS_ALLOWED = 16402,
        /// Data: four octets of seconds (RFC 4478).
        AUTH_LIFETIME = 16403,
        /// RFC 4739.
        MULTIPLE_AUTH_SUPPORTED = 16404,
        /// RFC 4739.
        ANOTHER_AUTH_FOLLOWS = 16405,
        /// RFC 5685.
        REDIRECT_SUPPORTED = 16406,
        /// Data: identity type, length, the new gateway, the initiator's nonce (RFC 5685).
        REDIRECT = 16407,
        /// Data: identity type, length, the former gateway (RFC 5685).
        REDIRECTED_FROM = 16408,
        /// RFC 5723.
        TICKET_LT_OPAQUE = 16409,
        /// RFC 5723.
        TICKET_REQUEST = 16410,
        /// RFC 5723.
        TICKET_ACK = 16411,
        /// RFC 5723.
        TICKET_NACK = 16412,
        /// RFC 5723.
        TICKET_OPAQUE = 16413,
        /// RFC 5739.
        LINK_ID = 16414,
        /// RFC 5840.
        USE_WESP_MODE = 16415,
        /// RFC 5857.
        ROHC_SUPPORTED = 16416,
        /// RFC 5998.
        EAP_ONLY_AUTHENTICATION = 16417,
        /// RFC 6023.
        CHILDLESS_IKEV2_SUPPORTED = 16418,
        /// RFC 6290.
        QUICK_CRASH_DETECTION = 16419,
        /// RFC 6311.
        IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420,
        /// RFC 6311.
        IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421,
        /// Data: nonce, next message id to send, next to receive (RFC 6311).
        IKEV2_MESSAGE_ID_SYNC = 16422,
        /// Data: increment of the outgoing sequence numbers (RFC 6311).
        IPSEC_REPLAY_COUNTER_SYNC = 16423,
        /// RFC 6467.
        SECURE_PASSWORD_METHODS = 16424,
        /// RFC 6631.
        PSK_PERSIST = 16425,
        /// RFC 6631.
        PSK_CONFIRM = 16426,
        /// RFC 6867.
        ERX_SUPPORTED = 16427,
        /// 3GPP TS 24.303.
        IFOM_CAPABILITY = 16428,
        /// RFC 9838.
        GROUP_SENDER = 16429,
        /// RFC 7383.
        IKEV2_FRAGMENTATION_SUPPORTED = 16430,
        /// Data: hash algorithms, two octets each (RFC 7427).
        SIGNATURE_HASH_ALGORITHMS = 16431,
        /// RFC 7791.
        CLONE_IKE_SA_SUPPORTED = 16432,
        /// RFC 7791.
        CLONE_IKE_SA = 16433,
        /// RFC 8019.
        PUZZLE = 16434,
        /// RFC 8784.
        USE_PPK = 16435,
        /// Data: type and identity of the key (RFC 8784).
        PPK_IDENTITY = 16436,
        /// Data: the AUTH value without the key (RFC 8784).
        NO_PPK_AUTH = 16437,
        /// RFC 9242.
        INTERMEDIATE_EXCHANGE_SUPPORTED = 16438,
        /// RFC 8983.
        IP4_ALLOWED = 16439,
        /// RFC 8983.
        IP6_ALLOWED = 16440,
        /// RFC 9370.
        ADDITIONAL_KEY_EXCHANGE = 16441,
        /// RFC 9347.
        USE_AGGFRAG = 16442,
    }
}

impl NotifyType {
    /// Whether the type reports an error; unknown errors in a response mean failure, unknown
    /// status types are ignored (RFC 7296 §3.10.1).
    pub const fn is_error(self) -> bool {
        self.0 < 16384
    }
}
