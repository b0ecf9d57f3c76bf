# The binary is built outside (`make image`): the image is that one file and a Dnsfile to start from.
FROM scratch
COPY skeindns /skeindns
COPY Dnsfile /Dnsfile
USER 65532:65532
EXPOSE 1053/udp 1053/tcp
ENTRYPOINT ["/skeindns"]
CMD ["--conf", "/Dnsfile"]
