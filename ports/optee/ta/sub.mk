srcs-y += ta.c
srcs-y += aead.c
srcs-y += identity.c
srcs-$(TINYTEE_TEE_HASH) += hash.c
