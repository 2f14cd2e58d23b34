-- PostgreSQL runs this once, when its volume is empty; the shop's own database is made by POSTGRES_DB
CREATE DATABASE prefect;
