// OpenSSL's libcrypto, for Linux only: on Apple platforms CryptoKit does the same.
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
