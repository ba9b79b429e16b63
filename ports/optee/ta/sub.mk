srcs-y += ta.c
srcs-y += aead.c
